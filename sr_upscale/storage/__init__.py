"""Bytes on disk and on the network: files that appear whole, downloads, addresses.

It imports errors, formatting and interrupts alone. Every room above may import it.
"""
