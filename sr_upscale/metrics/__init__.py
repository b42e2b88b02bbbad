"""How near to a reference, and how natural, a picture is.

Imported by what measures: `inference` (whether number types agree), `training`, `benchmark` and `cli`.
"""
