"""`raylr fit`, `raylr predict`, `raylr laws`, `raylr report`: what was measured, read again, without any training."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from raylr.cli.console import make_console, say
from raylr.cli.places import Use
from raylr.cli.runs import DEFAULT, Reading, count_of, family_of, read_for
from raylr.errors import InputError, LawError, nearest

if TYPE_CHECKING:
    from raylr.analysis.cells import Family
    from raylr.analysis.laws.loss_law import LossLaw, LossPrediction
    from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
    from raylr.analysis.laws.quantities import CurvatureLaw
    from raylr.analysis.laws.scaling import Estimate

EXIT_NO_MEANING = 3
"""Exit status of a prediction that is refused: too far outside the fitted range, or from a law that does not hold what
the prediction needs."""
NO_LAW = (
    "{0} holds a study that transfers or that searches modules, and has no law; `raylr fit {0}` shows what it found"
)
LARGEST_LAW_FILE = 10_000_000
"""Bytes of a law's file; a larger file is another one."""


def fit(
    study: Annotated[str, Use.READ],
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.WRITE] = None,
    family: str | None = None,
    reading: Reading = DEFAULT,
) -> None:
    """Fit optima and laws to what was measured, and show them with what to do next. What is read is not changed.

    Parameters
    ----------
    study
        A study's folder or its address, a folder of imported runs (`raylr import`), or a file of finished runs, such as
        sweep.csv.
    out
        A file to write the law to, as JSON; `raylr predict` reads it.
    family
        The kind of run whose law is written, where the runs are of several kinds.
    reading
        How to read a file of finished runs.
    """
    from raylr.finished import is_runs
    from raylr.report.ending import show_result
    from raylr.store.files import write_atomic
    from raylr.studies import open_study
    from raylr.study import StudyResult

    if is_runs(study):
        from raylr.report.runs_text import result_of, show_runs

        found = result_of(read_for(study, reading))
        show_runs(found, make_console())
        if out is not None:
            write_atomic(out, law_of(family_of(found.fit.families, family), study).to_json())
        return
    result = open_study(study).result()
    if not isinstance(result, StudyResult) and out is not None:
        raise LawError(NO_LAW.format(study))
    show_result(result, None, make_console())
    if out is not None and isinstance(result, StudyResult):
        write_atomic(out, result.fit.law.to_json())


def predict(
    law: Annotated[str, Use.READ],
    *,
    tokens: str,
    params: str | None = None,
    batch: str | None = None,
    width: str | None = None,
    level: float = 0.9,
    family: str | None = None,
    extrapolate: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Predict the optimal LR at a model size and a token budget. Nothing is written.

    A prediction far outside the range that the law was fitted on is refused, with exit status 3.

    Parameters
    ----------
    law
        A study's folder or its address, a folder or file of finished runs, a law.json, or the name of a published law
        (`raylr laws` lists them).
    tokens
        Training tokens: 500e9 or 500B.
    params
        Parameters of the model, as the law counts them: 12e9 or 12B.
    batch
        Tokens of one optimizer step: 4e6 or 4M. Needed by a law that has the batch in it and no rule for it.
    width
        Hidden size of the model, for a law over the width.
    level
        Coverage of the interval.
    family
        The kind of run, where finished runs are of several kinds.
    extrapolate
        Show the LR although the law does not support the prediction.
    as_json
        Print JSON.
    """
    from raylr.report.text import show_prediction

    fitted, losses, curvatures = read_laws(law, family)
    if not 0 < level < 1:
        raise InputError(f"--level is a coverage between 0 and 1, got {level:g}")
    counts = {
        name: None if text is None else count_of(f"--{name}", text)
        for name, text in (("params", params), ("batch", batch), ("width", width))
    }
    prediction = fitted.predict(
        counts["params"], count_of("--tokens", tokens), level=level, batch=counts["batch"], width=counts["width"]
    )
    known = math.isfinite(prediction.lr) and prediction.lr > 0
    refused = not known or not (prediction.status.ok or extrapolate)
    if reason := refusal(prediction):
        # In front of the answer, and with --json beside it: the number below it must not be used unread.
        say(make_console(file=sys.stderr) if as_json else make_console(), reason)
    place = (prediction.params, prediction.tokens)
    loss = losses.predict(*place, level, batch=prediction.batch) if losses is not None and losses.ok else None
    cost = curvatures.cost(*place, 2.0, level=level) if curvatures is not None and curvatures.usable else None
    if as_json:
        print(json.dumps(_record(prediction, loss, cost, refused=refused), indent=2))
    elif not refused:
        show_prediction(fitted, prediction, make_console(), loss=loss, cost=cost)
    if refused:
        raise SystemExit(EXIT_NO_MEANING)


def laws() -> None:
    """List the published laws: what N counts, ranges, schedule, optimizer, batch rule, whether the source was seen."""
    from raylr.analysis.laws import presets
    from raylr.report.lines import Line, show_lines

    console = make_console()
    for row in presets.table():
        console.print(f"[bold]{row.name}[/bold]")
        seen = "checked against its source" if row.verified else "its source was not seen"
        lines = [
            (f"{row.formula}", "Law"),
            (f"N: {row.size}; tokens: {row.tokens}", "Range"),
            (f"{row.schedule}, {row.optimizer}", "Runs"),
            (row.batch_rule, "Batch"),
            (row.weight_decay_rule, "Decay"),
            (row.notes, "Notes"),
            (f"{row.source} ({seen})", "Source"),
        ]
        show_lines([Line(text, heading) for text, heading in lines if text], console)
        console.print()


def report(
    study: Annotated[str, Use.READ],
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.READ] = None,
    reading: Reading = DEFAULT,
) -> None:
    """Write the report of a study or of finished runs: report.html, and figures/ as PNG and SVG.

    Parameters
    ----------
    study
        A study's folder or its address, a folder of imported runs, or a file of finished runs.
    out
        Folder for the report; by default the study's or runs' own, which may be read-only with this.
    reading
        How to read a file of finished runs.
    """
    from raylr.finished import is_runs

    if is_runs(study):
        from raylr.report.runs_html import write_runs_report
        from raylr.report.runs_text import result_of

        if out is None and not Path(study).is_dir():
            raise InputError("a report of a file needs a folder: give --out DIR")
        found = result_of(read_for(study, reading))
        say(make_console(), f"Report: {write_runs_report(found, out or Path(study))}")
        return
    from raylr.report.html import write_report
    from raylr.studies import open_study

    path = write_report(open_study(study).result(), out)
    say(make_console(), f"Report: {path}")


def law_of(family: Family, where: str) -> LRLaw:
    """Return the law of a family of finished runs. Raises LawError if it has none."""
    if family.law is None:
        raise LawError(f"{where}: {family.why}")
    return family.law


def read_law(name: str, family: str | None = None) -> LRLaw:
    """Return the law of a study's folder, of finished runs, of a law.json, or of that name; see `read_laws`."""
    return read_laws(name, family)[0]


def read_laws(name: str, family: str | None = None) -> tuple[LRLaw, LossLaw | None, CurvatureLaw | None]:
    """Return the law of a study's folder, of finished runs, of a law.json, or of that name, and where there are runs
    those of the loss and of its curvature over the LR.

    The laws of a study or of runs are fitted to what is there now, in memory.

    Args:
        name: Folder, address of a study, file, or name of a published law.
        family: The kind of run, where finished runs are of several kinds.

    Raises:
        LawError: If there is no such law, or the file holds none; the message names it.
        StudyError: If the folder holds no study.
    """
    from raylr.analysis.laws import presets
    from raylr.analysis.laws.lr_law import LRLaw
    from raylr.finished import fit_runs, is_runs
    from raylr.study import LAW_FILE

    path = Path(name)
    if "\0" not in name and path.exists() and is_runs(name):
        found = family_of(fit_runs(read_for(name)).families, family)
        return law_of(found, name), found.loss_law, found.curvature_law
    if path.is_dir():
        return _laws_of_study(name)
    if path.is_file():
        try:
            if path.stat().st_size > LARGEST_LAW_FILE:
                raise LawError(f"it has more than {LARGEST_LAW_FILE:,} bytes")
            return LRLaw.from_json(path.read_text(encoding="utf-8")), None, None
        except OSError as error:
            raise LawError(f"cannot read {path}: {error.strerror or error}") from None
        except (LawError, UnicodeDecodeError) as error:
            raise LawError(f"{path} holds no law: {error}; a study writes its law to {LAW_FILE}") from None
    known = presets.names()
    if "/" in name or name.endswith(".json"):
        raise LawError(f"there is no {name}; give a study's folder, a {LAW_FILE} or one of {', '.join(known)}")
    if name not in known:
        raise LawError(f"{name!r} is neither a study's folder nor a published law{nearest(name, known)}")
    return presets.get(name), None, None


def _laws_of_study(place: str) -> tuple[LRLaw, LossLaw | None, CurvatureLaw | None]:
    from raylr.studies import open_study
    from raylr.study import FittingStudy

    study = open_study(place)
    if not isinstance(study, FittingStudy):
        raise LawError(NO_LAW.format(place))
    fit = study.fit()
    return fit.law, fit.loss_law, fit.curvature_law


def refusal(prediction: LRPrediction) -> str:
    """Return why a prediction must not be used, in a sentence; "" if it may."""
    from raylr.analysis.laws.lr_law import EXTRAPOLATION_LIMIT
    from raylr.analysis.status import Status

    known = math.isfinite(prediction.lr) and prediction.lr > 0
    if known and prediction.status.ok:
        return ""
    if not known:
        return f"There is no prediction ({prediction.status}): {prediction.message}."
    if prediction.status is Status.EXTRAPOLATED:
        advice = (
            f"A law is not used beyond {EXTRAPOLATION_LIMIT:g} times its fitted range; an LR beyond that has no "
            "meaning. Run the study with larger sizes or budgets; --extrapolate shows the number all the same."
        )
    else:
        advice = "Run the study with more sizes or budgets; --extrapolate shows the number all the same."
    reasons = prediction.message.replace("extrapolated: ", "")
    return f"The law does not support this prediction ({prediction.status}): {reasons}. {advice}"


def _record(
    prediction: LRPrediction, loss: LossPrediction | None, cost: Estimate | None, *, refused: bool
) -> dict[str, object]:
    """Return a prediction as plain JSON values; what is not finite, not known, or refused, is null."""
    fields = dataclasses.asdict(prediction)
    for name in ("loss", "low", "high"):
        fields["loss" if name == "loss" else f"loss_{name}"] = None if loss is None else getattr(loss, name)
    fields["cost_of_factor_2"] = None if cost is None else cost.value
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
    return plain | (dict.fromkeys(("lr", "lr_low", "lr_high")) if refused else {})
