"""Weights on data sets: rows of scores, tables, pages.

Imported by `cli`, and by `server` for its viewer.
"""
