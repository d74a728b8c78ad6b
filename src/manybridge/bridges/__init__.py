"""The bundled bridges, one module or folder for each framework.

Each imports its framework in `preload` or `setup`, never at import: a worker must answer its first ping before the
framework is there, and the host may look at a bridge's declarations in an environment that has no framework at all.
"""
