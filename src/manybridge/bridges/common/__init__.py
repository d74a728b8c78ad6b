"""What the bundled bridges share. Private: a bridge of your own builds on `manybridge.bridge` alone.

Standard library only, and it knows no framework: each module is here because two bridges need the very same thing.
"""
