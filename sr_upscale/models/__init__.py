"""Networks as their papers draw them: generator, discriminators, VGG19 features, ensemble.

Imports `storage`; every room above may import it.
"""
