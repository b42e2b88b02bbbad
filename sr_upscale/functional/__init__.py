"""Pure functions of pixels: colour, resizing, alpha, PIL arrays.

Imports errors alone; every room above may import it.
"""
