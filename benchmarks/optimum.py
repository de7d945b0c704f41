"""How right is the answer, wherever people search a learning rate?

    python benchmarks/optimum.py                          # everything below, then asked against reached
    python benchmarks/optimum.py --functions --more       # made-up functions: answers against what was tried
    python benchmarks/optimum.py --points --more          # the same from given points, beside argmin and parabolas
    python benchmarks/optimum.py --units                  # the same losses in other units
    python benchmarks/optimum.py --tables                 # answers from given points, beside argmin, parabolas, GP
    python benchmarks/optimum.py --search                 # tables replayed, beside Optuna's GP, TPE and CMA-ES
    python benchmarks/optimum.py --sweeps                 # small_sweeps.csv after 8 and 16 runs, beside Optuna's GP
    python benchmarks/optimum.py --speed                  # time of a suggestion and of a fit
    python benchmarks/optimum.py --json out.json --plot DIR --every 4 --only raylr argmin

Regrets are in percent of the lowest loss, of the true loss at an LR, not of the measured one. `--every` takes every
n-th problem, `--only` the methods whose names contain a word. Data: RAYLR_DATA."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimum_points import made_up_section, speed_section, tables_section, units_section
from optimum_report import Options
from optimum_searches import functions_section, search_section, sweeps_section
from optimum_summary import summary

SECTIONS = {
    "functions": functions_section,
    "points": made_up_section,
    "units": units_section,
    "tables": tables_section,
    "sweeps": sweeps_section,
    "search": search_section,
    "speed": speed_section,
}
FITS, SEARCHES = ("points", "units", "tables"), ("functions", "sweeps", "search", "speed")
"""Sections that `laws.py` and `search.py` print too."""


def run(sections: Sequence[str], **options: Any) -> dict[str, Any]:
    """Numbers of the sections and of the summary, all printed."""
    chosen = Options(**options)
    if chosen.plot is not None:
        chosen.plot.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    for name in sections:
        began = time.perf_counter()
        report[name] = SECTIONS[name](chosen)
        print(f"  ({name}: {time.perf_counter() - began:.0f} s)", flush=True)
    report["summary"] = summary(report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SECTIONS:
        parser.add_argument(f"--{name}", action="store_true", help="this section (default: all)")
    parser.add_argument("--more", action="store_true", help="further kinds of functions")
    parser.add_argument("--kinds", nargs="*", help="these kinds of functions only")
    parser.add_argument("--count", type=int, default=60, help="functions of a kind")
    parser.add_argument("--every", type=int, default=1, help="take every n-th problem only")
    parser.add_argument("--seeds", type=int, default=1, help="searches of a cell of a table")
    parser.add_argument("--only", nargs="*", help="words of the names of methods")
    parser.add_argument("--worst", type=int, default=0, help="print so many of the worst problems with their points")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--earlier", type=Path, help="take the searches of peers from this file of --json")
    parser.add_argument("--plot", type=Path, help="write pictures into this folder")
    args = vars(parser.parse_args())
    from search_replay import quiet

    quiet()
    earlier = args.pop("earlier")
    args["earlier"] = json.loads(earlier.read_text()) if earlier else {}
    path, asked = args.pop("json"), [name for name in SECTIONS if args.pop(name)]
    report = run(asked or list(SECTIONS), **args)
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
