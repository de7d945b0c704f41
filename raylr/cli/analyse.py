"""`raylr analyse …`: what training did inside, from a study's run table. Nothing is trained."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from raylr.cli.console import make_console, say
from raylr.cli.places import Use
from raylr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from raylr.analysis.figures.description import Figure
    from raylr.analysis.qk_norm import NormEffect
    from raylr.analysis.stability import Movement

app = cyclopts.App(name="analyse", help="What training did inside, from a study's run table; nothing is trained.")
FIGURES = "figures"


@app.command
def probes(
    path: Annotated[Path, Use.READ],
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.READ] = None,
    as_csv: Annotated[bool, Parameter(name="--csv")] = False,
) -> None:
    """Show what the probes of a study's runs measured, and draw it over steps.

    Parameters
    ----------
    path
        A study's folder or its address, or a file with one row for each validation (JSON lines, CSV, Parquet).
    out
        Folder for the figures; without it, `figures` in the folder or beside the file.
    as_csv
        Print one line for each number: trial, tokens, step, quantity, module, layer, expert, value.
    """
    from raylr.analyses import read_measured
    from raylr.analysis.figures import probes as figures
    from raylr.analysis.probes import Record, summaries, tidy

    found = read_measured(path)
    records = tidy(found.rows)
    if not records:
        raise InputError(
            f"{found.where}: no run was measured by probes; add probes: [update_rms, …] to the spec's section train"
        )
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(Record.__dataclass_fields__)
        writer.writerows(["" if cell is None else cell for cell in asdict(record).values()] for record in records)
        return
    console = make_console()
    for line in summaries(found.runs()):
        say(console, line)
    _write("probes", figures.figures(found.runs()), _place(path, out), console)


@app.command
def stability(
    path: Annotated[Path, Use.READ],
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.READ] = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Compare how activations move with more data and with a larger model (the paper's Section 6.4, Figure 10).

    Parameters
    ----------
    path
        A study's folder or its address, a file of rows, or the folder of a coordinate check (there, steps stand for
        data and width for size). Runs without the probe `changes` are measured at the checkpoints that the study keeps.
    out
        Folder for the figure; without it, `figures` in the folder or beside the file.
    as_json
        Print every exponent as JSON.
    """
    from raylr.analyses import MeasuredRuns, changes_in_checkpoints, read_check, read_measured
    from raylr.analysis.figures import probes as figures
    from raylr.analysis.stability import movements, of_check, of_rows
    from raylr.report.probes import movement_text

    checks = read_check(path) if path.is_dir() else None
    if checks is not None:
        measured = {str(check["variant"]): of_check(check["measured"]) for check in checks if check["axis"] == "width"}
        least, data, size = 2, "steps", "width"
    else:
        read = read_measured(path)
        if path.is_dir() and not of_rows(read.rows):
            read = MeasuredRuns(rows=changes_in_checkpoints(path), where=str(path))
        measured = {kind: of_rows(rows) for kind, rows in read.kinds().items()}
        least, data, size = 3, "tokens", "parameters"
    measured = {kind: moved for kind, moved in measured.items() if moved}
    if not measured:
        raise InputError(
            f"{path}: no run was measured by the probe changes, and no checkpoint is kept; add it to train.probes"
        )
    found = {kind: movements(moved, least_points=least) for kind, moved in measured.items()}
    if as_json:
        print(json.dumps({kind: [one.to_json() for one in many] for kind, many in found.items()}, indent=1))
        return
    console = make_console()
    for kind, many in found.items():
        say(console, f"{kind[0].upper()}{kind[1:]}: {movement_text(many, data, size)}")
        _movement_table(many, console, data, size)
    _write("stability", {"stability": figures.movement(measured, data=data, size=size)}, _place(path, out), console)


@app.command(name="qk-norm")
def qk_norm(
    path: Annotated[Path, Use.READ],
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.READ] = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Compare runs with and without QK norm (the paper's Figures 7 and 9).

    Parameters
    ----------
    path
        A study's folder, or its address, that has sizes with `qk_norm: true` and `false`, a file of such
        rows, or the folder of a coordinate check.
    out
        Folder for the figures; without it, `figures` in the folder or beside the file.
    as_json
        Print what was compared as JSON.
    """
    from raylr.analyses import read_check, read_measured
    from raylr.analysis.figures import probes as figures
    from raylr.analysis.qk_norm import of_check, of_runs

    checks = read_check(path) if path.is_dir() else None
    if checks is not None:
        effects = of_check(checks)
        drawn: Mapping[str, Figure] = {}
    else:
        runs = read_measured(path).runs()
        effects = of_runs(runs)
        drawn = {"qk_norm": figures.update_rms(runs)} if effects else {}
    if not effects:
        raise InputError(f"{path}: nothing was measured both with and without QK norm (`qk_norm: false` of a model)")
    if as_json:
        print(json.dumps([one.to_json() for one in effects], indent=1))
        return
    console = make_console()
    for one in effects:
        say(console, one.sentence)
    _effect_table(effects, console)
    _write("qk-norm", drawn, _place(path, out), console)


def _place(path: Path, out: Path | None) -> Path:
    return out or (path if path.is_dir() else path.parent) / FIGURES


def _write(name: str, drawn: Mapping[str, Figure], folder: Path, console: Console) -> None:
    """Write the figures as PNG and SVG, and a page with all of them."""
    from raylr.report.page import Figures, page
    from raylr.store.files import write_atomic

    if not drawn:
        return
    figures = Figures(drawn, folder)
    file = folder / f"{name}.html"
    footer = f"Made by raylr analyse {name}."
    write_atomic(file, page(name=name, heading="Analysis", answer="", sections=map(figures, drawn), footer=footer))
    for one in drawn:
        say(console, f"{folder / one}.png", heading="Written")
    say(console, f"{file}", heading="Written")


def _movement_table(found: list[Movement], console: Console, data: str, size: str) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("x_t − x_0", "std at the end", f"∝ {data}^", f"∝ {size}^", "∝ lr^", "faster with"):
        table.add_column(name, justify="left" if name in ("x_t − x_0", "faster with") else "right")
    for one in found:
        cells = [_shown(exponent) for exponent in (one.tokens, one.size, one.lr)]
        table.add_row(one.name, f"{one.ends[0]:.3g} to {one.ends[1]:.3g}", *cells, one.verdict)
    console.print(table)


def _shown(one: Any) -> str:
    return "–" if one.problem else f"{one.value:+.2f} ± {(one.high - one.low) / 2:.2f}"


def _effect_table(found: list[NormEffect], console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("what", "with QK norm", "without"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for one in found:
        for name, (with_norm, without) in one.pairs.items():
            table.add_row(f"{one.name}, {name}" if len(found) > 1 else name, *(_value(v) for v in (with_norm, without)))
    console.print(table)


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
