"""Pictures to learn from, and what makes them small.

Imported by `training`, `benchmark` and `cli`.
"""
