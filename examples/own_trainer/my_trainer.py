"""Somebody's training function for Ray Tune, in a module of their own; a made-up loss stands for the training."""

import json
import math
import tempfile
from pathlib import Path

from ray import tune


def train(config: dict) -> None:
    """Train one run: report `loss` and `tokens`, with a checkpoint from which a stopped run continues."""
    done = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            done = json.loads((Path(folder) / "state.json").read_text())["tokens"]
    for tokens in config["eval_at"]:
        if tokens <= done or tokens > config["stop_at"]:
            continue
        best = 5e-3 * (config["width"] / 32) ** -0.6
        loss = 2 + (tokens / 1e4) ** -0.4 + 0.06 * math.log(config["lr"] / best) ** 2
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.json").write_text(json.dumps({"tokens": tokens}))
            tune.report({"loss": loss, "tokens": tokens}, checkpoint=tune.Checkpoint.from_directory(folder))
