"""Networks as their papers draw them: generator, discriminators, VGG19 features, ensemble.

It imports `storage`. Every room above may import it.
"""
