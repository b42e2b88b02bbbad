"""One file, or a folder: read ahead, enlarge, write behind; the manifest.

Imported by `server` and `cli`.
"""
