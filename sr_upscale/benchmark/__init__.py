"""Weights on data sets: rows of scores, tables, pages.

Imported by `cli` alone.
"""
