"""A file for each format: how it is read, refused and written. `codec.Codec` says what they share.

`formats.FORMATS` lists them, with what each format can hold. Libvips and Pillow are their tools.
"""
