"""The answer as a fragment of a trainer's own configuration; one module for each trainer."""
