"""Clips: frames with time stamps from a container and into one, by PyAV (extra ``video``), with all that is theirs.

`containers` and `options` are light; the others import PyAV, and nothing of a picture's way imports them.
"""
