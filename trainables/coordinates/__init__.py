"""Coordinate checks: how the coordinates of a network's activations change with its width, depth and tokens."""
