"""The transformations: each is an interpreter of primitives, an object of a few lines."""
