"""Executors: they carry out a plan of `sr_upscale.tiling` and yield finished rows from top to bottom."""
