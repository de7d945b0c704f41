"""Takes the arguments of torchtitan's train.py, trains nothing, and prints the lines of its metrics processor
(torchtitan/components/metrics.py) as torchrun's `--tee` shows them."""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("module", "config", "dump_folder"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--optimizer.lr", type=float, required=True)
parser.add_argument("--lr_scheduler.decay_ratio", type=float)
for name in ("lr_scheduler.warmup_steps", "training.steps", "training.num_tokens_per_train_step", "validator.freq",
             "training.max_context_length", "debug.seed", "metrics.log_freq", "checkpoint.interval"):  # fmt: skip
    parser.add_argument(f"--{name}", type=int, required=True)
for name in ("validator.enable", "metrics.disable_color_printing", "checkpoint.enable"):
    parser.add_argument(f"--{name}", action="store_true", required=True)
given = vars(parser.parse_args())

HEAD = "[rank0]:[titan] 2026-11-25 10:00:00,000 - root - INFO -"
saved = [int(path.name.partition("-")[2]) for path in Path(given["dump_folder"]).glob("checkpoint/step-*")]
for step in range(max(saved, default=0) + 1, given["training.steps"] + 1):
    loss = 2 + 8 * step**-0.4 + 1e3 * (given["optimizer.lr"] - 1e-3) ** 2
    tail = "memory:  1.23GiB(5.6%)  tps: 1,234"
    if step == 1 or step % given["metrics.log_freq"] == 0:
        line = (
            f"\x1b[31mstep: {step:2}  \x1b[32mloss: {loss:8.5f}  \x1b[38;2;180;60;0mgrad_norm:  0.5123  {tail}\x1b[39m"
        )
        print(f"{HEAD} {line}  tflops: 12.34  mfu: 5.67%")
    if step % given["validator.freq"] == 0:
        print(f"{HEAD} validate step: {step:2}  loss: {loss + 0.01:8.5f}  {tail}", flush=True)
    if step % given["checkpoint.interval"] == 0:
        Path(given["dump_folder"], "checkpoint", f"step-{step}").mkdir(parents=True)
