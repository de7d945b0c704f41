"""A run table of a made-up study with a known law."""

import math
from pathlib import Path

import numpy as np

from raylr.store.runtable import evaluations_table
from raylr.store.table import Table

C, ALPHA, BETA = 8e-3, 0.3, 0.35
SIZES = {"S": 100_000, "M": 250_000, "L": 600_000}
TARGET = 1_500_000
BUDGET = 1_000_000


def lr_opt(params: float, tokens: float) -> float:
    return C * (params / 1e5) ** -ALPHA * (tokens / 1e6) ** -BETA


def loss(params: float, lr: float, tokens: float) -> float:
    z = math.log(lr / lr_opt(params, tokens))
    return 2.2 + 4 * (tokens / 2e4) ** -0.35 * (params / 1e5) ** -0.05 + 0.06 * z**2


def synthetic_table(folder: Path, *, noise: float = 1e-3, check: bool = True) -> Table:
    rng = np.random.default_rng(0)
    plan = [("search", name, params, lr, BUDGET) for name, params in SIZES.items() for lr in (2e-3, 4e-3, 8e-3, 1.6e-2)]
    if check:
        plan += [("check", "XL", TARGET, lr, 2 * BUDGET) for lr in (1.1e-3, 3.3e-3, 1e-2)]
    rows = []
    for role, size, params, lr, budget in plan:
        for tokens in np.linspace(budget / 20, budget, 20).astype(int).tolist():
            row = {"trial": f"{role}-{size}-{lr}", "role": role, "size": size, "params": params, "lr": lr}
            row |= {"tokens": tokens, "loss": loss(params, lr, tokens) + noise * rng.standard_normal()}
            rows.append(row | {"flops": 6.0 * params * tokens, "diverged": False, "seed": 0})
    table = evaluations_table(folder)
    table.append(rows)
    return table
