"""Tests; each file mirrors one module of the package."""
