"""Time and size of a study's run table at 10^3, 10^4 and 10^5 evaluations.

Runs of 100 evaluations, 5 side by side, are written as a study writes them: rows are buffered, and flushed at the end
of each run. "Killed" is the table as a kill leaves it, "compacted" as the end of a stage does. The numbers in a row
have random mantissas, as measured ones have, so that compression has nothing to gain from the benchmark itself.

    python benchmarks/store.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raylr.store.runtable import evaluations_table
from raylr.store.table import Table

PER_RUN, BESIDE = 100, 5
APPENDS = 20


def rows_of_runs(first: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return the rows of `BESIDE` runs in the order in which they come."""
    rows = []
    for point in range(1, PER_RUN + 1):
        for run in range(first, first + BESIDE):
            tokens = point * 2048 * 32
            loss = 2.2 + (tokens / 2e4) ** -0.35 + 1e-2 * rng.standard_normal()
            rows.append(
                {
                    "trial": f"{run:016x}",
                    "role": "search",
                    "size": f"S{run % 7}",
                    "params": 100_000 * (1 + run % 7),
                    "params_active": 50_000 * (1 + run % 7),
                    "lr": 1e-3 * 1.01 ** (run % 100),
                    "peak_lr": 1e-3 * 1.01 ** (run % 100),
                    "tokens": tokens,
                    "step": point * 32,
                    "loss": loss,
                    "train_loss": loss + 1e-2 * rng.standard_normal(),
                    "aux_loss": 1 + 0.1 * rng.random(),
                    "grad_norm": rng.random(),
                    "tokens_per_second": 2e4 * rng.random(),
                    "train_seconds": tokens / 2e4 + rng.random(),
                    "eval_seconds": tokens / 2e5 + rng.random(),
                    "epoch": tokens / 1e7,
                    "flops": 6e5 * tokens,
                    "diverged": False,
                    "seed": 0,
                }
            )
    return rows


def seconds_of(action: Callable[[], object]) -> float:
    """Return how long the action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure(evaluations: int, folder: Path) -> dict[str, float]:
    """Write a table of so many evaluations and measure it."""
    rng = np.random.default_rng(0)
    batches = [rows_of_runs(first, rng) for first in range(0, evaluations // PER_RUN, BESIDE)]
    table = evaluations_table(folder)

    def write() -> None:
        for rows in batches:
            for row in rows[: -BESIDE + 1]:
                table.put([row])
            for row in rows[-BESIDE + 1 :]:  # the runs end one after the other
                table.append([row])

    written = seconds_of(write)
    killed = seconds_of(lambda: opened(folder).read())
    fragments = len(table.fragments())
    compacting = seconds_of(table.compact)
    read = seconds_of(lambda: opened(folder).read())
    assert len(opened(folder)) == evaluations
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    extra = rows_of_runs(evaluations, rng)[:APPENDS]
    appends = [seconds_of(lambda row=row: table.append([row])) for row in extra]  # type: ignore[misc]
    return {
        "evaluations": evaluations,
        "row_ms": 1e3 * written / evaluations,
        "append_ms": 1e3 * float(np.median(appends)),
        "fragments": fragments,
        "read_killed_seconds": killed,
        "compact_seconds": compacting,
        "read_seconds": read,
        "disk_mb": disk / 1e6,
    }


def opened(folder: Path) -> Table:
    """Return the table as another process would open it."""
    return evaluations_table(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers there too; - prints them alone")
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    found = []
    for count in options.counts:
        folder = Path(tempfile.mkdtemp(prefix="raylr-store-"))
        try:
            found.append(measure(count, folder))
        finally:
            shutil.rmtree(folder)
    largest = found[-1]
    if options.json:
        short = {"append_ms": largest["append_ms"]}
        if largest["evaluations"] == 100_000:
            short |= {"read_100k_seconds": largest["read_seconds"], "disk_100k_mb": largest["disk_mb"]}
        text = json.dumps({**short, "tables": found}, indent=1)
        if str(options.json) == "-":
            print(text)
            return
        options.json.write_text(text)
    print(
        f"{'evaluations':>12} {'row':>9} {'append':>9} {'fragments':>10} {'read, killed':>13} {'compact':>8} ", end=""
    )
    print(f"{'read':>7} {'disk':>8}")
    for one in found:
        print(
            f"{one['evaluations']:>12,} {one['row_ms']:>6.3f} ms {one['append_ms']:>6.2f} ms {one['fragments']:>10} "
            f"{one['read_killed_seconds']:>11.2f} s {one['compact_seconds']:>6.2f} s {one['read_seconds']:>5.2f} s "
            f"{one['disk_mb']:>5.2f} MB"
        )


if __name__ == "__main__":
    main()
