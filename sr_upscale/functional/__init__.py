"""Pure functions of pixels: colour, resizing, alpha, PIL arrays.

It imports errors alone. Every room above may import it.
"""
