"""What a parametrization's parameter groups cost in a training step: `python benchmarks/parametrize.py [--steps 60]`.

Two equal models are trained in turns, one with the two usual groups (matrices, norms), one with those of `parametrize`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from raylr.trainables import ModelSpec, parametrize
from raylr.trainables.models.build import build

_SHARED = {"kv_heads": 2, "head_dim": 16, "experts": 8, "top_k": 2, "vocab_size": 1024}
BASE = ModelSpec(hidden_size=32, layers=2, heads=2, expert_size=32, **_SHARED)
TARGET = ModelSpec(hidden_size=112, layers=4, heads=14, expert_size=112, **_SHARED)


def usual(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices with weight decay, the rest without."""
    matrices = [param for param in model.parameters() if param.dim() > 1]
    rest = [param for param in model.parameters() if param.dim() < 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]


def main() -> None:
    """Print the median times of the optimizer and of a whole step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    ids = torch.randint(1024, (16, 129), generator=torch.Generator().manual_seed(0))
    kinds: dict[str, Callable[[nn.Module], list[dict[str, Any]]]] = {
        "usual groups": usual,
        "parametrize": lambda model: parametrize(model, base=BASE, lr=1e-3, token_ratio=4.0),
    }
    made = {name: build(TARGET, seed=0) for name in kinds}
    optimizers = {name: torch.optim.AdamW(kinds[name](model), lr=1e-3, fused=True) for name, model in made.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(steps):
        for name, model in made.items():
            start = time.perf_counter()
            model(ids[:, :-1], ids[:, 1:]).total.backward()
            middle = time.perf_counter()
            optimizers[name].step()
            optimizers[name].zero_grad()
            end = time.perf_counter()
            times[name].append((end - middle, end - start))
    found = {
        name: [statistics.median(column) * 1e3 for column in zip(*rows, strict=True)] for name, rows in times.items()
    }
    for name, (optimizer, step) in found.items():
        groups = len(optimizers[name].param_groups)
        print(f"{name}: {groups} groups, optimizer {optimizer:.3f} ms of a step of {step:.1f} ms")
    more = found["parametrize"][0] - found["usual groups"][0]
    print(f"overhead: {more / found['usual groups'][1]:.2%} of a step")


if __name__ == "__main__":
    main()
