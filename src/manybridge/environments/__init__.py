"""Environments of frameworks: immutable, named by the hash of their lock, checked before any interpreter starts."""
