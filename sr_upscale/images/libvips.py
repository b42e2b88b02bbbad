"""libvips, whose log no Python code handles: `from sr_upscale.images.libvips import pyvips`.

pyvips brings every warning into Python's logging. Python may collect garbage there, a source that is freed may warn as
well, and GLib aborts the process where a handler of its log is called within itself. Errors reach us as exceptions.
"""

import pyvips

pyvips._remove_log_handler()  # libvips' own then says nothing (VIPS_WARNING in `sr_upscale.images`)

__all__ = ["pyvips"]
