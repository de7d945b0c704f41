"""The loss over learning rate and tokens of one model size."""
