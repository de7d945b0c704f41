"""A function trainable without a model, for studies that are disturbed: a made-up loss, a checkpoint with every report,
and a line in `steps.log` of the run's folder for each.

FAULTY_SECONDS is how long a report takes. Each file in `marks` beside the study makes one run misbehave once, after its
third report: it is named `hang`, after a signal that its process gets, such as `kill`, or as one of `odd_functions`.
"""

import json
import math
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from odd_functions import ODD
from ray import tune


def loss_at(config: dict, tokens: int) -> float:
    seen = 25 * tokens
    best = 8e-3 * (config["params"] / 1e5) ** -0.3 * (seen / 1e6) ** -0.35
    noise = 1e-3 * math.sin(1e4 * math.log(config["lr"]) + tokens)
    return 2.2 + 4 * (seen / 2e4) ** -0.35 * (config["params"] / 1e5) ** -0.05 + 0.06 * math.log(
        config["lr"] / best
    ) ** 2 + noise  # fmt: skip


def misbehave(config: dict) -> None:
    """Do what the first file of the folder of marks says; the file then says which run did."""
    folder = Path(config["dir"]).absolute()
    for mark in sorted(folder.parents[2].glob("marks/[!.]*")):
        done = mark.with_name(f".{mark.name}")
        try:
            mark.rename(done)  # one run alone gets it
        except OSError:
            continue
        who = f"{'S' if config['params'] < 2e5 else 'M'} {config['lr']}"
        done.write_text(who)
        if mark.name in ODD:
            if made := ODD[mark.name](folder):
                done.write_text(f"{who} {made}")
            return
        if mark.name == "hang":
            time.sleep(1000)
        os.kill(os.getpid(), getattr(signal, f"SIG{mark.name.upper()}"))
        time.sleep(1000)


def train(config: dict) -> object:
    """Train one run."""
    done, folder = 0, Path(config["dir"])
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as kept:
            done = json.loads((Path(kept) / "state.json").read_text())["tokens"]
    fresh = done == 0
    if config.get("fails"):
        raise RuntimeError("device-side assert triggered")
    for tokens in config["eval_at"]:
        if tokens <= done or tokens > config["stop_at"]:
            continue
        time.sleep(float(os.environ.get("FAULTY_SECONDS", "0")))
        if fresh and tokens > config["eval_at"][2]:
            fresh = False
            misbehave(config)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "steps.log").open("a") as log:
            log.write(f"{tokens}\n")
        with tempfile.TemporaryDirectory() as made:
            Path(made, "state.json").write_text(json.dumps({"tokens": tokens}))
            row = {"loss": loss_at(config, tokens), "tokens": tokens}
            tune.report(row, checkpoint=tune.Checkpoint.from_directory(made))
    return threading.Lock() if (folder / "returns").exists() else None
