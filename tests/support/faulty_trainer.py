"""A function trainable without a model, for studies that are disturbed: a made-up loss, a checkpoint with every report,
a line in `steps.log` of the run's folder for each report, and a folder of marks that make it misbehave once.
"""

import json
import math
import os
import signal
import tempfile
import time
from pathlib import Path

from ray import tune


def loss_at(config: dict, tokens: int) -> float:
    seen = 25 * tokens
    best = 8e-3 * (config["params"] / 1e5) ** -0.3 * (seen / 1e6) ** -0.35
    noise = 1e-3 * math.sin(1e4 * math.log(config["lr"]) + tokens)
    return 2.2 + 4 * (seen / 2e4) ** -0.35 * (config["params"] / 1e5) ** -0.05 + 0.06 * math.log(
        config["lr"] / best
    ) ** 2 + noise  # fmt: skip


def misbehave(marks: Path, done: int) -> None:
    """Do what the first mark says, once: of a file `hang` in the folder of marks, for example, `hang-done` is made."""
    for mark in sorted(marks.glob("*")):
        try:
            mark.rename(mark.with_name(f".{mark.name}-done-{os.getpid()}"))  # one run alone gets it
        except OSError:
            continue
        if mark.name == "hang":
            time.sleep(1000)
        else:
            os.kill(os.getpid(), getattr(signal, f"SIG{mark.name.upper()}"))
        return


def train(config: dict) -> None:
    """Train one run."""
    done, folder = 0, Path(config["dir"])
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as kept:
            done = json.loads((Path(kept) / "state.json").read_text())["tokens"]
    for tokens in config["eval_at"]:
        if tokens <= done or tokens > config["stop_at"]:
            continue
        time.sleep(float(config.get("seconds", 0)))
        with (folder / "steps.log").open("a") as log:
            log.write(f"{tokens}\n")
        if "marks" in config and tokens > config["eval_at"][2]:
            misbehave(Path(config["marks"]), tokens)
        broken = "nan" in config and tokens > config["eval_at"][2]
        with tempfile.TemporaryDirectory() as made:
            Path(made, "state.json").write_text(json.dumps({"tokens": tokens}))
            row = {"loss": math.nan if broken else loss_at(config, tokens), "tokens": tokens}
            tune.report(row, checkpoint=tune.Checkpoint.from_directory(made))
