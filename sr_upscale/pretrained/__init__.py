"""Weights: names, files, safe loading, other people's networks, blends, export.

Imports `models` and `storage`; every room above may import it.
"""
