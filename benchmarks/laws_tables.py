"""The tables that `laws.py` reads, and how its results are printed and kept."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from replay_data import LossOverLR

Out = dict[str, float]
"""Name to number, as in the file of --json."""


def row(name: str, *values: Any) -> None:
    """One line of a table."""
    print(f"  {name:34}" + "".join(f"{v:>16}" for v in values), flush=True)


def covered(out: Out, name: str, hits: Iterable[bool]) -> str:
    """Keep the share of truths inside the 90 % interval, and how many they were; the share as text."""
    inside = np.array(list(hits), dtype=bool)
    if not inside.size:
        return "none"
    out[f"{name}_coverage_90"], out[f"{name}_coverage_n"] = float(inside.mean()), float(inside.size)
    return f"{inside.mean():.0%} of {inside.size}"


def regret(truth: LossOverLR, at: float) -> float:
    """Percent of the best loss that is lost at ln lr `at`."""
    return 100 * (float(truth(at)) / truth.best - 1)


def tables(data: Path) -> dict[str, pd.DataFrame]:
    """Losses of constant LRs, one table a model and seed: index tokens, columns LR.

    A seed that was run at some of the LRs only takes the others from the first seed."""
    out: dict[str, pd.DataFrame] = {}
    wsd = data / "wsd124m_stable.csv"
    if wsd.exists():
        out["wsd124m"] = pd.read_csv(wsd).pivot_table(index="tokens", columns="lr", values="val_loss").dropna()
    moe = data / "moe_curves.csv"
    if moe.exists():
        for params, part in pd.read_csv(moe).groupby("params"):
            seeds = {s: g.pivot_table(index="tokens", columns="lr", values="val_loss") for s, g in part.groupby("seed")}
            first = seeds[min(seeds)]
            for seed, table in seeds.items():
                out[f"moe{params / 1e6:.2g}M seed {seed}"] = table.combine_first(first).sort_index(axis=1).dropna()
    return out


def constant_curves(data: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, tokens (or steps) and losses of runs at a constant LR: all of the 25M and 100M models, and those of
    `tables` that end within 5 % of the best."""
    out = []
    path = data / "schedules_25m_100m.csv"
    if path.exists():
        frame = pd.read_csv(path)
        constant = frame[frame["schedule"].str.startswith("constant")]
        for (params, _), part in constant.groupby(["params_m", "schedule"]):
            out.append((f"{params}M", part["step"].to_numpy(float), part["loss"].to_numpy(float)))
    for name, table in tables(data).items():
        end = table.iloc[-1]
        out += [
            (name, table.index.to_numpy(float), table[lr].to_numpy()) for lr in table if end[lr] <= 1.05 * end.min()
        ]
    return out


def grid_cells(data: Path, name: str) -> pd.DataFrame:
    """One row a cell of an `lr_grid` table: its features, LRs and losses."""
    frame = pd.read_csv(data / f"lr_grid_{name}.csv")
    frame = frame[np.isfinite(frame["smooth_loss"])]
    keys = [k for k in ("sparsity", "N", "N_active", "D", "batch_seqs") if k in frame]
    rows = []
    for values, part in frame.groupby(keys):
        mean = part.groupby("lr")["smooth_loss"].mean()
        if mean.size >= 5:
            lr, loss = mean.index.to_numpy(float), mean.to_numpy()
            over = LossOverLR(np.log(lr), loss)
            rows.append({**dict(zip(keys, values, strict=True)), "lr": lr, "loss": loss, "over": over})
    cells = pd.DataFrame(rows)
    cells["size"] = cells["N_active" if "N_active" in cells else "N"].astype(float)
    cells["tokens"] = cells["D"].astype(float)
    return cells


def four(cell: pd.Series, scheme: str) -> np.ndarray:
    """Which 4 LRs of a cell: `spread` over all, or every second one `around` the best."""
    n, best = cell["lr"].size, int(np.argmin(cell["loss"]))
    if scheme == "spread":
        return np.round(np.linspace(0, n - 1, 4)).astype(int)
    first = int(np.clip(best - 3, 0, max(n - 7, 0)))
    return np.arange(first, min(first + 7, n), 2)
