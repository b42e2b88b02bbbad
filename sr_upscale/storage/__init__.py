"""Bytes on disk and on the network: files that appear whole, downloads, addresses.

Imports errors alone; every room above may import it.
"""
