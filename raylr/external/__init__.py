"""Studies of another trainer: a command line, or a function for Ray Tune, in place of raylr's own training loop."""
