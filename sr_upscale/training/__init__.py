"""Teaching: recipes, losses, steps, state.

Imported by `cli` alone. It and `inference` never import each other.
"""
