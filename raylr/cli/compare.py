"""`raylr compare`: the fitted LR, transferred hyperparameters, and the rule at the fitted LR, beside each other."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from raylr.cli.console import ConsoleListener, make_console, say
from raylr.cli.places import Use
from raylr.cli.runs import DEFAULT, Reading, count_of, read_for
from raylr.errors import InputError

if TYPE_CHECKING:
    from raylr.comparison import ComparisonResult
    from raylr.events import Listener
    from raylr.study import Study

RUNS = Path("runs")


def compare(
    fitting: Annotated[str | None, Use.READ] = None,
    transfer: Annotated[str | None, Use.READ] = None,
    *,
    target: str | None = None,
    seeds: int = 3,
    sweep: int = 0,
    train: bool = False,
    seed_sd: float | None = None,
    params: str | None = None,
    tokens: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.READ] = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    reading: Reading = DEFAULT,
) -> None:
    """Compare the two paradigms at one target: losses with the noise between seeds, the cost of each, a verdict.

    Arms: the fitted LR; the transferred hyperparameters; the target's parametrization at the fitted LR, which
    separates the effect of the LR from that of the parametrization; with --sweep also the best LR of a sweep at the
    target. What is there is read; what is missing is trained with --train, and the same command continues what was
    stopped.

    Parameters
    ----------
    fitting
        The folder or the spec of a study that fits a law; or finished runs of any kind (a folder or file, as for
        `raylr fit`), which are compared by the columns named with --by, or by their LR; or a study whose sizes differ
        in a key of `model`, named with --by. Without it and without transfer: the examples, which are trained.
    transfer
        The folder or the spec of a study that transfers. Studies of specs are run in runs/NAME.
    target
        The transfer study's target. Default: the one that is the fitting study's.
    seeds
        Runs of each arm.
    sweep
        Most runs of a sweep of the LR at the target itself.
    train
        Run the studies and train the arms as far as they are not there.
    seed_sd
        Standard deviation of the final loss between seeds, nats, if it is known from elsewhere.
    params
        Of finished runs of several models: the parameters of the one to compare.
    tokens
        Of finished runs of several budgets: the one to compare.
    out
        Folder for comparison.html, comparison.json and figures/. Default: runs/compare with --train, otherwise nothing
        is written.
    as_json
        Print JSON.
    reading
        How to read finished runs.
    """
    from raylr.comparison import as_json as json_of
    from raylr.report.comparison import show_comparison, write_comparison

    console = make_console()
    if transfer is None and fitting is not None:
        result = _finished(fitting, params, tokens, seed_sd, reading)
    elif params or tokens or reading != DEFAULT:
        raise InputError(
            "--params, --tokens and the options of reading are for finished runs, without a transfer study"
        )
    else:
        train = train or fitting is None
        result = _studies(fitting, transfer, target, seeds, sweep, train, seed_sd, quiet=as_json)
    folder = out or (RUNS / "compare" if train else None)
    report = write_comparison(result, folder) if folder is not None else None
    if as_json:
        print(json_of(result))
        return
    show_comparison(result, report, console)


def _finished(
    source: str, params: str | None, tokens: str | None, seed_sd: float | None, reading: Reading
) -> ComparisonResult:
    from raylr.finished import is_runs
    from raylr.finished_arms import compare_finished
    from raylr.imports.study import recognises

    searched = bool(reading.by) and recognises(Path(source))
    if not Path(source).exists() and not is_runs(source):
        raise InputError(f"there is no {source}; give the folders of two studies, or finished runs")
    if not is_runs(source) and not searched:
        raise InputError(f"{source}: give the folder of a transfer study too, or finished runs instead of a study")
    n = None if params is None else count_of("--params", params)
    d = None if tokens is None else count_of("--tokens", tokens)
    return compare_finished(read_for(source, reading), params=n, tokens=d, seed_sd=seed_sd, searched=searched)


def _studies(
    fitting: str | None, transfer: str | None, target: str | None, seeds: int, sweep: int, train: bool,
    seed_sd: float | None, *, quiet: bool,
) -> ComparisonResult:  # fmt: skip
    from raylr.comparison import compare as compare_studies
    from raylr.events import Listener
    from raylr.report.html import write_report
    from raylr.study import FittingStudy
    from raylr.transfer_study import TransferStudy

    if not train:
        one, other = _study(fitting, "fitting", Listener(), train), _study(transfer, "transfer", Listener(), train)
        assert isinstance(one, FittingStudy)
        assert isinstance(other, TransferStudy)
        return compare_studies(one, other, target=target, seeds=seeds, sweep=sweep, seed_sd=seed_sd)
    import sys

    console = make_console(file=sys.stderr) if quiet else make_console()
    with ConsoleListener(console) as listener:
        one, other = _study(fitting, "fitting", listener, train), _study(transfer, "transfer", listener, train)
        assert isinstance(one, FittingStudy)
        assert isinstance(other, TransferStudy)
        try:
            found = compare_studies(one, other, target=target, seeds=seeds, sweep=sweep, train=True, seed_sd=seed_sd)
            listener.stage("Writing the reports")
            for study in (one, other):
                write_report(study.result())
            return found
        except KeyboardInterrupt:
            words = ["raylr", "compare", *(word for word in (fitting, transfer) if word), "--train"]
            say(console, f"Stopped. Everything measured is kept; `{shlex.join(words)}` continues.")
            raise


def _study(given: str | None, kind: str, listener: Listener, train: bool) -> Study:
    """Return the study of a folder, of a spec's file, or of the example of that name."""
    from raylr.quickstart import example_spec
    from raylr.spec import load_spec
    from raylr.studies import open_study, study_of

    if given is None:
        found: Study = study_of(example_spec(kind), RUNS / kind, progress=listener)
    elif Path(given).is_dir():
        found = open_study(given, progress=listener)
    else:
        spec, folder = load_spec(given), RUNS / Path(given).stem
        if not train and not folder.is_dir():
            raise InputError(f"the study of {given} was not begun ({folder} is not there); --train runs it")
        found = study_of(spec, folder, progress=listener)
    wanted = kind == "transfer"
    if (found.spec.transfer is not None) != wanted:
        raise InputError(
            f"{given} is a study that {'fits a law' if wanted else 'transfers'}: give the fitting study first, then "
            "the transfer study"
        )
    return found
