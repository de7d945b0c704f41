"""Programs that score a model on questions."""
