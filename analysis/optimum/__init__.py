"""The loss over the learning rate of one model at one token budget."""
