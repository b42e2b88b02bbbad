"""How near to a reference, and how natural, a picture is.

Imported by what measures: `training`, `benchmark`, `cli`.
"""
