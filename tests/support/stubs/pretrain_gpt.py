"""Takes the arguments of Megatron-LM's pretrain_gpt.py (megatron/training/arguments.py), trains nothing, and prints the
lines of its training loop (megatron/training/training.py)."""

import argparse
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("num-layers", "hidden-size", "num-attention-heads", "seq-length", "max-position-embeddings", "seed",
             "micro-batch-size", "global-batch-size", "train-iters", "lr-warmup-iters", "eval-interval", "eval-iters",
             "log-interval", "save-interval"):  # fmt: skip
    parser.add_argument(f"--{name}", type=int, required=True)
for name in ("lr", "min-lr", "weight-decay", "adam-beta1", "adam-beta2", "clip-grad"):
    parser.add_argument(f"--{name}", type=float, required=True)
parser.add_argument("--lr-decay-style", choices=["constant", "linear", "cosine", "inverse-square-root", "WSD"])
for name in ("data-path", "tokenizer-type", "tokenizer-model", "save", "load"):
    parser.add_argument(f"--{name}")
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--exit-signal-handler", action="store_true")
given = parser.parse_args()

latest = Path(given.load) / "latest_checkpointed_iteration.txt"
iteration = int(latest.read_text()) if latest.exists() else 0


def save(*_: object) -> None:
    folder = Path(given.save) / f"iter_{iteration:07d}"
    folder.mkdir(parents=True, exist_ok=True)
    latest.write_text(str(iteration))
    print(f"  successfully saved checkpoint from iteration {iteration:7d} to {given.save}")


def on_signal(*_: object) -> None:
    save()
    print("exiting program after receiving SIGTERM.")
    sys.exit(0)


signal.signal(signal.SIGTERM, on_signal)
while iteration < given.train_iters:
    iteration += 1
    loss = 2 + 8 * iteration**-0.4 + 1e3 * (given.lr - 1e-3) ** 2
    if iteration % given.log_interval == 0:
        print(
            f" [2026-11-25 10:00:00.000000] iteration {iteration:8d}/{given.train_iters:8d} | consumed samples: "
            f"{iteration * given.global_batch_size:12d} | elapsed time per iteration (ms): 512.3 | learning rate: "
            f"{given.lr:.6E} | global batch size: {given.global_batch_size:5d} | lm loss: {loss:.6E} | "
            "loss scale: 1.0 | grad norm: 0.512 | number of skipped iterations:   0 | number of nan iterations:   0 |"
        )
    if iteration % given.eval_interval == 0:
        print("-" * 90)
        print(f" validation loss at iteration {iteration} | lm loss value: {loss + 0.01:.6E} | lm loss PPL: 1.4E+01 | ")
        print("-" * 90, flush=True)
    if iteration % given.save_interval == 0:
        save()
        time.sleep(0.005)
for name, offset in (("validation", 0.01), ("test", 0.02)):
    value = f"{loss + offset:.6E}"
    print(f" validation loss at iteration {iteration} on {name} set | lm loss value: {value} | lm loss PPL: 1.4E+01 | ")
