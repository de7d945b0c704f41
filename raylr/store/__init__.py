"""Storage of a study: append-only tables."""
