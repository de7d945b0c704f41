"""`raylr import`, `suggest`, `tell`, `query`: finished runs, wherever they were made. Nothing is trained, no Ray."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from raylr.cli.console import make_console, say
from raylr.cli.places import Use
from raylr.errors import InputError

if TYPE_CHECKING:
    from raylr.analysis.cells import Family
    from raylr.finished import FinishedRuns
    from raylr.imports.options import ImportOptions


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read a source of finished runs."""

    columns: str | None = None
    """Which of its columns is which, ours=theirs: params=N,tokens=D,batch=batch_seqs,loss=smooth_loss."""
    fixed: Annotated[str | None, Parameter(name="--set")] = None
    """What all runs share and the source does not say: params=124e6,tokens=2.5e9,seq_len=2048."""
    unit: str | None = None
    """The unit of a column of counts: params=1e9; batch=sequences or batch=tokens."""
    by: str | None = None
    """Columns that keep runs apart (parametrization,optimizer): an optimum and a law for each of their values."""
    rows: str | None = None
    """Whether a row of a file is a whole run (runs) or one evaluation of a run (evaluations)."""
    missing_loss: str = "unfinished"
    """What a run without a loss is: unfinished or diverged."""

    def options(self) -> ImportOptions:
        """Return the options, checked."""
        from raylr.imports.options import parse_options

        return parse_options(columns=self.columns, fixed=self.fixed, unit=self.unit, by=self.by, rows=self.rows,
                             missing_loss=self.missing_loss)  # fmt: skip


DEFAULT = Reading()


def import_(
    files: Annotated[list[str], Use.READ],
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"]), Use.READ],
    reading: Reading = DEFAULT,
) -> None:
    """Import finished runs into a folder that fit, predict, report, suggest, query and recipe work on.

    Runs that the folder has already are recognised and not added again, so the same command can be repeated as runs
    finish.

    Parameters
    ----------
    files
        CSV, JSON lines or Parquet files, or their addresses; folders of TensorBoard events, of an MLflow store, of
        W&B's offline runs; wandb:ENTITY/PROJECT; a study's folder or its address.
    out
        The folder for the runs, or its address; it may hold runs already.
    reading
        How to read them.
    """
    from raylr.imports.run import summary
    from raylr.imports.sources import read_runs
    from raylr.store.runsfolder import RunsFolder

    console = make_console()
    folder = RunsFolder(out)
    folder.check()
    found = read_runs(files, reading.options())
    for line in summary(found):
        say(console, f"{line[0].upper()}{line[1:]}.")
    added = folder.add(found.runs)
    for note in added.notes:
        say(console, f"{note[0].upper()}{note[1:]}.")
    known = f", {added.known} were there before" if added.known else ""
    say(console, f"{added.new} runs added to {out}{known}; `raylr fit {out}` shows what they say.")


def read_for(path: str, reading: Reading = DEFAULT) -> FinishedRuns:
    """Return the finished runs of a folder, a file or another source."""
    from raylr.finished import read_finished

    return read_finished(path, reading.options())


def suggest(
    runs: Annotated[str, Use.READ],
    *,
    count: Annotated[int, Parameter(name=["--n", "-n"])] = 3,
    params: str | None = None,
    tokens: str | None = None,
    batch: str | None = None,
    family: str | None = None,
    reading: Reading = DEFAULT,
) -> None:
    """Print the next LRs to run, and why. Nothing is written; `raylr tell`, or importing again, adds their results.

    Parameters
    ----------
    runs
        A folder of imported runs, or a file of runs, or the address of one.
    count
        How many LRs, all to be run at once.
    params
        Parameters of the model to run, with --tokens; without both, the settings where a run is most informative.
    tokens
        Its training tokens.
    batch
        Its batch, in what the runs count it in.
    family
        The kind of run, where there are several.
    reading
        How to read a file.
    """
    from raylr.analysis.next_runs import missing_runs, next_in_cell
    from raylr.finished import fit_runs

    if not 1 <= count <= 1000:
        raise InputError(f"--n is a number of runs from 1 to 1000, got {count}")
    if (params is None) != (tokens is None):
        raise InputError("give both --params and --tokens of the model to run, or neither")
    console = make_console()
    found = fit_runs(read_for(runs, reading))
    if params is None or tokens is None:
        missing = missing_runs(found, count, each=count)
        for one in missing:
            name = f"{one.setting.name} ({one.family})" if one.family else one.setting.name
            _print_lrs(one.lrs, name, one.reason)
        if not missing:
            say(console, "No further run is worth it: every optimum is known.")
        return
    n, d = count_of("--params", params), count_of("--tokens", tokens)
    b = None if batch is None else count_of("--batch", batch)
    chosen = family_of(found.families, family)
    cell = _cell_at(chosen, n, d, b)
    if cell is not None:
        from raylr.analysis.next_runs import why

        lrs = next_in_cell(cell, count, law=chosen.law)
        if not lrs:
            say(console, f"No further run is worth it at {cell.setting.name}: {cell.fit.message}")
            return
        _print_lrs(lrs, cell.setting.name, why(cell))
        return
    _first(chosen, n, d, b, count)


def _first(family: Family, params: float, tokens: float, batch: float | None, count: int) -> None:
    from raylr.analysis.next_runs import first_lrs
    from raylr.analysis.runs import Setting
    from raylr.analysis.units import format_count

    if family.law is None:
        raise InputError(f"no run at this size and budget yet, and no law to begin from: {family.why}")
    name = f"{format_count(params)} at {format_count(tokens)} tokens"
    setting = Setting(name=name, params=params, tokens=tokens, batch=batch)
    lrs = first_lrs(setting, count, law=family.law)
    _print_lrs(lrs, name, "no run there yet; these are the LR of the law and LRs within its interval")


def _print_lrs(lrs: list[float], name: str, reason: str) -> None:
    from raylr.analysis.units import format_lr

    console = make_console()
    for i, lr in enumerate(lrs):
        say(console, f"{format_lr(lr)}  {name}" + (f": {reason}" if i == 0 else ""))


def _cell_at(family: Family, params: float, tokens: float, batch: float | None) -> Any:
    """Return the cell of a setting, if there are runs of it; InputError if several batches are."""
    from raylr.analysis.units import format_count

    near = [
        one for one in family.optima
        if one.setting.params and abs(one.setting.params / params - 1) < 0.02
        and one.setting.tokens and abs(one.setting.tokens / tokens - 1) < 0.02
        and (batch is None or (one.setting.batch and abs(one.setting.batch / batch - 1) < 0.02))
    ]  # fmt: skip
    if len(near) > 1:
        batches = ", ".join(format_count(one.setting.batch or 0) for one in near)
        raise InputError(f"there are runs with the batches {batches} at this size and budget: give --batch")
    return near[0] if near else None


def family_of(families: list[Family], name: str | None) -> Family:
    """Return the family of that name, or the only one. Raises InputError naming them otherwise."""
    if name is None and len(families) == 1:
        return families[0]
    known = [family.name for family in families]
    if name not in known:
        got = "" if name is None else f"; there is no {name!r}"
        raise InputError(f"the runs are of several kinds: choose one with --family{got} ({'; '.join(known)})")
    return families[known.index(name)]


def tell(
    runs: Annotated[Path, Use.READ],
    *,
    lr: str,
    loss: str,
    params: str | None = None,
    tokens: str | None = None,
    batch: str | None = None,
    seq_len: str | None = None,
    size: str | None = None,
    seed: int | None = None,
    run: str | None = None,
) -> None:
    """Add one finished run to a folder of runs, which is made if it is not there.

    What all runs of the folder share need not be given again.

    Parameters
    ----------
    runs
        The folder, or its address.
    lr
        Peak LR of the run.
    loss
        Its final loss; nan or diverged if it diverged.
    params
        Parameters of the model.
    tokens
        Training tokens.
    batch
        Tokens of one optimizer step; sequences, with --seq-len.
    seq_len
        Tokens of one sequence, for a batch in sequences.
    size
        Name of the model.
    seed
        Its seed.
    run
        Its name, where the launcher gave it one.
    """
    from raylr.finished import shared_settings
    from raylr.imports.options import ImportOptions
    from raylr.imports.rows import Row, Rows
    from raylr.imports.runs import runs_from
    from raylr.store.runsfolder import RunsFolder

    console = make_console()
    folder = RunsFolder(runs)
    folder.check()
    given = {"lr": lr, "loss": loss, "params": params, "tokens": tokens, "batch": batch, "seq_len": seq_len,
             "size": size, "seed": seed, "run": run}  # fmt: skip
    values = {name: value for name, value in given.items() if value is not None}
    kind = None if batch is None else "tokens" if seq_len is None else "sequences"
    if RunsFolder.at(runs):
        shared, kind_before = shared_settings(folder.trials(), set(values))
        values |= shared
        kind = kind if seq_len is not None else kind_before
    rows = Rows(rows=[Row(values, "the run")], columns=list(values), where="the run")
    columns = {name: name for name in values}
    found = runs_from(rows, ImportOptions(columns=columns, batch_kind=kind))
    added = folder.add(found.runs)
    for note in added.notes:
        say(console, f"{note[0].upper()}{note[1:]}.")
    total = len(folder.trials())
    say(console, f"{'Added' if added.new else 'Known already'}; {runs} has {total} run{'s' if total > 1 else ''}.")


def query(
    runs: Annotated[str, Use.READ],
    sql: str,
    *,
    form: Annotated[str, Parameter(name="--format")] = "table",
    reading: Reading = DEFAULT,
) -> None:
    """Query finished runs in SQL; the tables are `runs`, `evaluations` and `optima`. Nothing can be written.

    Parameters
    ----------
    runs
        A folder of imported runs, a study's folder, or a file of runs, or the address of one.
    sql
        The question, such as "SELECT size, min(loss) FROM runs GROUP BY size".
    form
        How to print: table, csv or json.
    reading
        How to read a file.
    """
    from raylr.query import FORMATS, ask, write

    if form not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)}, got {form!r}")
    write(ask(read_for(runs, reading), sql), form, sys.stdout)


def count_of(option: str, text: str) -> float:
    """Return a count of the command line. Raises InputError naming the option."""
    from raylr.analysis.units import parse_count

    try:
        return parse_count(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
