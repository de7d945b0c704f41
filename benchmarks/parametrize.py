"""What a parametrization costs in a training step: `python benchmarks/parametrize.py [--pairs 60]`.

Two equal models take steps in turns, one with the two usual parameter groups (matrices, norms), one with those of
`parametrize`; which goes first changes from pair to pair. The LR is so small that both keep routing their tokens
alike. A step can differ in two places: in the optimizer, and, where the depth changes, in the additions to the residual
stream, which then have a factor. Both are timed on their own, `REPEATS` times a pair, and the sum of their differences
is given as a share of the whole step. Whole steps are compared too, as a check with a wider interval. Times are
processor times of the one thread.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raylr.quickstart import quickstart_spec
from raylr.trainables import ModelSpec, TrainSpec, parametrize
from raylr.trainables.models.build import build

REPEATS = 20
LEVEL = 0.9
LR = 1e-12
REACH = 0.005


def usual(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices with weight decay, the rest without."""
    matrices = [param for param in model.parameters() if param.dim() > 1]
    rest = [param for param in model.parameters() if param.dim() < 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]


def by_rule(base: ModelSpec) -> Callable[[nn.Module], list[dict[str, Any]]]:
    return lambda model: parametrize(model, base=base, lr=LR, token_ratio=4.0, initialised="keep")


def apart(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A group for each tensor, as for a comparison."""
    return [{**group, "params": [param]} for group in groups for param in group["params"]]


def measure(target: ModelSpec, base: ModelSpec, ids: torch.Tensor, pairs: int) -> dict[str, np.ndarray]:
    """Return, for each kind of groups, times in seconds [pairs, (optimizer, whole step)]."""
    kinds: dict[str, Callable[[nn.Module], list[dict[str, Any]]]] = {
        "usual": usual,
        "rule": by_rule(base),
        "a group a tensor": lambda model: apart(by_rule(base)(model)),
    }
    made = {name: build(target, seed=0) for name in kinds}
    optimizers = {name: torch.optim.AdamW(kinds[name](model), lr=LR, fused=True) for name, model in made.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for pair in range(pairs + 3):
        found = {}
        residual = additions(target, ids, target.layers / base.layers)
        for name in list(kinds)[:: 1 if pair % 2 else -1]:
            start = time.process_time()
            made[name](ids[:, :-1], ids[:, 1:]).total.backward()
            optimizers[name].step()
            whole = time.process_time() - start
            found[name] = [0.0, whole]
        for repeat in range(REPEATS):
            for name in list(kinds)[:: 1 if repeat % 2 else -1]:
                start = time.process_time()
                optimizers[name].step()
                found[name][0] += (time.process_time() - start) / REPEATS
        found["rule"][0] += residual
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            if pair >= 3:  # the first steps allocate
                times[name].append((found[name][0], found[name][1]))
    return {name: np.array(rows) for name, rows in times.items()}


def additions(target: ModelSpec, ids: torch.Tensor, depth_ratio: float) -> float:
    """Return by how many seconds a step's additions to the residual stream take longer with a factor."""
    if depth_ratio == 1:
        return 0.0
    x, y = torch.zeros(2, ids.shape[0], ids.shape[1] - 1, target.hidden_size, requires_grad=True).unbind()
    back, times = torch.ones_like(x), [0.0, 0.0]
    for repeat in range(REPEATS):
        for with_factor in (0, 1) if repeat % 2 else (1, 0):
            start = time.process_time()
            added = torch.add(x, y, alpha=1 / depth_ratio) if with_factor else x + y
            torch.autograd.grad(added, (x, y), back)
            times[with_factor] += (time.process_time() - start) / REPEATS
    return 2 * target.layers * (times[1] - times[0])


def share(more: np.ndarray, of: np.ndarray) -> tuple[float, float, float]:
    """Return the median of `more` over that of `of`, with a bootstrap interval over the pairs."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(more), size=(2000, len(more)))
    values = np.median(more[drawn], axis=1) / np.median(of[drawn], axis=1)
    low, high = np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(np.median(more) / np.median(of)), float(low), float(high)


def processor() -> str:
    """Name of the processor, as the system says it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    """Print the overhead for each of the quickstart's models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    spec = quickstart_spec()
    assert isinstance(spec.train, TrainSpec)
    batch, length = spec.train.batch_tokens, spec.train.seq_len
    ids = torch.randint(1024, (batch // length, length + 1), generator=torch.Generator().manual_seed(0))
    sizes = {name: model for name, model in spec.models().items() if isinstance(model, ModelSpec)}
    base = sizes["S"]
    largest = spec.target_model()
    assert isinstance(largest, ModelSpec)
    targets = {**sizes, "XL": largest, "XL, 4 layers": largest.model_copy(update={"layers": 4})}
    print(f"one thread of {processor()}, torch {torch.__version__}; {batch} tokens a step, {pairs} pairs of steps")
    print("90 % intervals; overhead: of the parts that differ, whole: of whole steps, single: a group for each tensor")
    for name, target in targets.items():
        times = measure(target, base, ids, pairs)
        usually, rule, single = times["usual"], times["rule"], times["a group a tensor"]
        more = share(rule[:, 0] - usually[:, 0], usually[:, 1])
        whole = share(rule[:, 1] - usually[:, 1], usually[:, 1])
        alone = share(single[:, 0] - usually[:, 0], usually[:, 1])
        groups = len(by_rule(base)(build(target, seed=0)))
        held = "within" if more[2] <= REACH else "above" if more[1] > REACH else "cannot tell:"
        shown = {"overhead": more, "whole": whole, "single": alone}
        numbers = ", ".join(f"{what} {x:+.2%} ({low:+.2%} to {high:+.2%})" for what, (x, low, high) in shown.items())
        step, optimizer = np.median(usually[:, 1]) * 1e3, np.median(usually[:, 0]) * 1e3
        head = f"{name:12s} {groups} groups, step {step:5.1f} ms, optimizer {optimizer:.2f} ms"
        print(f"{head}: {numbers}; {held} {REACH:.1%}", flush=True)


if __name__ == "__main__":
    main()
