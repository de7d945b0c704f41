"""What a study of thousands of trials costs the driver, and what runs side by side cost the search.

    python benchmarks/scale.py                          # 500 and 1,000 trials beside plain Tune; 10,000 of raylr's
    python benchmarks/scale.py --trials 500 --repeats 3 # these numbers of trials, three times in turn; medians
    python benchmarks/scale.py --most 3000              # the largest study, of raylr alone; 0 for none
    python benchmarks/scale.py --without-tune           # raylr's driver alone: policy, tables, no Ray Tune
    python benchmarks/scale.py --concurrency            # regret, runs and rounds at 1, 4, 16, 64 side by side
    python benchmarks/scale.py --json                   # the numbers alone; --json FILE writes them there as well

Training is simulated: each trial reports eight losses at once, from actors inside of the driver's process
(scale_actors.py). Everything else is real: the spec with one cell for every 20 trials, the policy, the tables, Tune's
controller with its files and snapshots. Plain Tune runs as many trials with the same reports, by one OptunaSearch over
LR and cell ("optuna"), and by one OptunaSearch for each cell ("optuna per cell", which costs it least). Each case is a
process of its own, that has run a small study before, and so is each restore. Times are processor times of the
driver's process, with those of its threads; seconds on the wall are beside them, and hold the waits for the disk (a
study's rows survive a crash of the machine; Tune's files do not). Exponents are slopes of ln cost over ln trials (1 is
linear) between the largest study and the same one scaled down: as many times fewer trials, cells and trials side by
side. Both plan rounds of one LR; with 256 side by side, a study of a few cells has broader rounds, and fewer fits and
plans for each trial ("fits/trial"). Memory is what the process holds at most beyond what it held before."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES = ("raylr", "optuna", "optuna per cell")
WITHOUT_TUNE = "raylr without tune"
GROWS = ("cpu_ms", "restore_seconds", "memory_mb", "table_mb")
"""What may not grow faster than the number of trials; `growth_exponent` is the largest of their exponents."""
WARM = 50
"""Trials of the study that a process runs first, so that imports are not counted."""
SHOWN = (
    ("cpu_ms", "ms/trial", "{:.1f}"),
    ("wall_ms", "ms/trial, wall", "{:.1f}"),
    ("suggest_ms", "ms/suggest", "{:.2f}"),
    ("fits", "fits/trial", "{:.2f}"),
    ("restore_seconds", "restore, s", "{:.1f}"),
    ("memory_mb", "memory, MB", "{:.0f}"),
    ("table_mb", "tables, MB", "{:.2f}"),
)


def processor() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{name}, {os.cpu_count()} cores"


def one_case(case: str, trials: int, beside: int) -> dict[str, float]:
    """Run one case in this process, and restore it in another, and return what both took."""
    folder = Path(tempfile.mkdtemp(prefix="raylr-scale-"))
    try:
        run_study(case, WARM, beside, folder / "warm")
        with memory() as held:
            took = run_study(case, trials, beside, folder / "study")
        took |= in_process(case, trials, beside, folder)
        return {
            "trials": took["trials"],
            "most_side_by_side": took["most_side_by_side"],
            "cpu_ms": 1e3 * took["cpu_seconds"] / took["trials"],
            "wall_ms": 1e3 * took["seconds"] / took["trials"],
            "suggest_ms": took["suggest_ms"],
            "restore_seconds": took["restore_seconds"],
            "fits": took["fits"] / took["trials"],
            "memory_mb": held["mb"],
            "table_mb": took["table_bytes"] / 1e6,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_study(case: str, trials: int, beside: int, folder: Path) -> dict[str, float]:
    """Run the study of a case, or restore the one that its folder has, and return what it took."""
    import scale_study as study

    if case != WITHOUT_TUNE:
        start_ray()
    if case.startswith("raylr"):
        return study.search(folder, trials, beside, by_tune=case != WITHOUT_TUNE)
    return study.plain(folder, trials, beside, per_cell=case == "optuna per cell")


def restored(case: str, trials: int, beside: int, folder: Path) -> dict[str, float]:
    """Restore what `one_case` has left in a folder, the small study first, and return what the large one took."""
    run_study(case, WARM, beside, folder / "warm")
    return {"restore_seconds": run_study(case, trials, beside, folder / "study")["cpu_seconds"]}


def start_ray() -> None:
    """Start Ray's processes, which Tune requires, with one CPU: no trial has an actor of its own."""
    import ray

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    if not ray.is_initialized():
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="critical")


@contextlib.contextmanager
def memory() -> Iterator[dict[str, float]]:
    """Fill in the most megabytes that this process holds while the block runs, beyond what it held before."""
    found: dict[str, float] = {}
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the study before this one has freed
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before = peak_mb()
    yield found
    found["mb"] = peak_mb() - before


def peak_mb() -> float:
    """Return the most memory that this process has held, since that was set back where the system can do so."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def in_process(case: str, trials: int, beside: int, folder: Path | None = None) -> dict[str, float]:
    """Run one case in a process of its own; with a folder, restore what is there."""
    command = [sys.executable, __file__, "--one", case, "--trials", str(trials), "--beside", str(beside)]
    command += ["--restore", str(folder)] if folder else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{case} with {trials} trials failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def exponents(cases: list[dict[str, float]]) -> dict[str, float]:
    """Return name of a cost -> exponent over the number of trials."""
    first, last = cases[0], cases[-1]
    span = math.log(last["trials"] / first["trials"]) if len(cases) > 1 else 0.0
    if span == 0:
        return {}
    per_trial = {"cpu_ms", "wall_ms", "suggest_ms", "fits"}
    return {
        name: (name in per_trial) + math.log(last[name] / first[name]) / span
        for name, _, _ in SHOWN
        if min(first[name], last[name]) > 0
    }


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each number over repetitions."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def driver(
    counts: list[int], most: int, beside: int, cases: tuple[str, ...], repeats: int, *, quiet: bool
) -> dict[str, Any]:
    """Measure all cases at these numbers of trials, and raylr's at `most`."""
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    if not quiet:
        print(f"{processor()}; {beside} trials side by side; {repeats} times")
        print(f"{'':20}{'trials':>8}" + "".join(f"{title:>16}" for _, title, _ in SHOWN), flush=True)
    own = cases[0]
    scaled = f"{own}, scaled down"

    def measure(trials: int, beside: int, names: tuple[str, ...], title: str = "{}") -> None:
        rows: dict[str, list[dict[str, float]]] = {case: [] for case in names}
        for _ in range(repeats if trials != most else 1):
            for case in names:  # in turn, so that a busy machine is busy for all
                rows[case].append(in_process(case, trials, beside))
        for case in names:
            one = medians(rows[case])
            found.setdefault(title.format(case), []).append(one)
            if not quiet:
                row = "".join(form.format(one[name]).rjust(16) for name, _, form in SHOWN)
                print(f"{title.format(case):20}{one['trials']:>8.0f}{row}", flush=True)

    for count in counts:
        measure(count, beside, cases)
    if most:
        measure(counts[-1], max(1, round(beside * counts[-1] / most)), (own,), "{}, scaled down")
        measure(most, beside, (own,))
    largest = found[own][-1]
    growth = exponents([*found.get(scaled, found[own][:1]), largest])
    report: dict[str, Any] = {
        "processor": processor(), "side_by_side": beside, "repeats": repeats, "cases": found,
        "exponents": {case: exponents(rows) for case, rows in found.items()} | {scaled: growth},
        "growth_exponent": max((growth[name] for name in growth if name in GROWS), default=None),
        "restore_10k_seconds": largest["restore_seconds"] if largest["trials"] >= 9_000 else None,
        "restore_ms_per_trial": 1e3 * largest["restore_seconds"] / largest["trials"],
        "suggest_ms": largest["suggest_ms"],
    }  # fmt: skip
    for case, name in (("optuna", "driver_ms_per_trial_ratio"), ("optuna per cell", "ratio_to_a_search_per_cell")):
        if case in found:
            report[name] = found[own][len(counts) - 1]["cpu_ms"] / found[case][-1]["cpu_ms"]
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 1000], help="numbers of trials, rising")
    parser.add_argument("--most", type=int, default=10_000, help="trials of the largest study, of raylr alone; 0: none")
    parser.add_argument("--repeats", type=int, default=1, help="how often each is measured; the medians are shown")
    parser.add_argument("--beside", type=int, default=256, help="trials side by side")
    parser.add_argument("--without-tune", action="store_true", help="raylr's driver alone")
    parser.add_argument("--concurrency", action="store_true", help="the search at 1, 4, 16, 64 side by side instead")
    parser.add_argument("--every", type=int, default=8, help="with --concurrency: take every n-th cell of the tables")
    parser.add_argument("--functions", type=int, default=6, help="with --concurrency: made-up functions of each kind")
    parser.add_argument("--first", type=int, default=0, help="with --concurrency: number of the first of them")
    parser.add_argument("--json", type=Path, nargs="?", const=Path("-"), help="print the numbers alone, or write them")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--restore", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case = (options.one, options.trials[0], options.beside)
        print(json.dumps(restored(*case, options.restore) if options.restore else one_case(*case)))
        return
    alone = str(options.json) == "-"
    if options.concurrency:
        from scale_concurrency import compare

        report = compare(options.every, options.functions, options.first, quiet=alone)
    else:
        cases = (WITHOUT_TUNE,) if options.without_tune else CASES
        report = driver(options.trials, options.most, options.beside, cases, options.repeats, quiet=alone)
    text = json.dumps(report, indent=1)
    if alone:
        print(text)
        return
    if options.json:
        options.json.write_text(text + "\n")
    print(json.dumps({name: value for name, value in report.items() if name != "cases"}, indent=1))


if __name__ == "__main__":
    main()
