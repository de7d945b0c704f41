"""A trainer without a model, to be run as a command: it prints the losses of a known law as JSON lines.

It saves a checkpoint at every measurement and notes each step that it makes in steps.log. `--fault` makes it end as
trainers do: crash, nan, hang, silent, renamed, kill.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("lr", "params"):
    parser.add_argument(f"--{name}", type=float, required=True)
for name in ("tokens", "batch", "every"):
    parser.add_argument(f"--{name}", type=int, required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--seconds", type=float, default=float(os.environ.get("MADE_SECONDS", "0")))
parser.add_argument("--std", type=float, default=0.02, help="init std")
for name in ("--width-mult", "--token-mult"):
    parser.add_argument(name, type=float, default=1.0, help="ratio of a transfer, whose rule this law obeys")
parser.add_argument("--fault", default="")
parser.add_argument("--resume", type=Path)
given = parser.parse_args()

SCALE = 25
"""Tokens of the law per token here."""


def loss_at(tokens: int) -> float:
    seen = SCALE * tokens
    optimum = 8e-3 * (given.params / 1e5) ** -0.3 * (seen / 1e6) ** -0.35
    spread = math.log(given.std / 0.02)
    height = 0.06 * (math.log(given.lr / optimum) + 0.5 * spread) ** 2 + 0.01 * spread**2
    noise = 1e-3 * math.sin(1e4 * math.log(given.lr) + tokens + given.seed)
    return 2.2 + 4 * (seen / 2e4) ** -0.35 * (given.params / 1e5) ** -0.05 + height + noise


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


done = json.loads(given.resume.read_text())["tokens"] if given.resume else 0
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
middle = given.tokens // 2
print("made_trainer: ready")
while done < given.tokens:
    time.sleep(given.seconds)
    done = min(done + given.batch, given.tokens)
    with Path("steps.log").open("a") as file:
        file.write(f"{done}\n")
    if done % given.every and done < given.tokens:
        continue
    if given.fault == "crash" and done >= middle:
        print("RuntimeError: device-side assert triggered", file=sys.stderr)
        sys.exit(3)
    if given.fault == "hang" and done >= middle:
        time.sleep(1000)
    if given.fault == "kill" and done >= middle and not given.resume:
        os.kill(os.getpid(), signal.SIGKILL)
    if given.fault == "silent":
        continue
    if given.fault == "renamed":
        say(val_loss=loss_at(done), step=done // given.batch)
        continue
    say(loss=math.nan if given.fault == "nan" and done >= middle else loss_at(done), tokens=done)
    checkpoint = Path(f"checkpoint-{done:08d}.json")
    checkpoint.with_suffix(".tmp").write_text(json.dumps({"tokens": done}))
    checkpoint.with_suffix(".tmp").replace(checkpoint)
