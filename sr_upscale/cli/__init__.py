"""The command line: parses, calls, prints.

Imported by no other folder.
"""

COMMANDS = (
    "upscale",
    "batch",
    "models",
    "doctor",
    "train",
    "degrade",
    "export",
    "benchmark",
    "compare",
    "serve",
    "config",
)
"""Names of commands and of their modules: a function of the same name, or an ``app`` of several."""
