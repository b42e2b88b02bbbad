"""How a picture is cut, and what runs the pieces: plans, strips, tiles, backends.

Imported by `upscaler` and the rooms above it. It and `training` never import each other.
"""
