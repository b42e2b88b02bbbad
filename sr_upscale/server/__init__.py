"""The page of ``sr-upscale serve``, and the HTTP API behind it (docs/serve.md).

Imported by `cli` alone.
"""
