"""raylr: which learning rate for a pre-training run you can afford only once, from runs a hundred times cheaper."""
