"""Teaching the generator."""
