"""The training loop, its engine, schedule, checkpoints and workers."""
