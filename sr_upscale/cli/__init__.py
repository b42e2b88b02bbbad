"""The command line: parses, calls, prints.

Imported by nothing.
"""
