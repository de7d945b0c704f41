"""`raylr eval`: score a checkpoint on MMLU and CMMLU; `raylr eval setup`: make OpenCompass's environment."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from raylr.cli.console import ConsoleListener, make_console, say
from raylr.cli.places import Use
from raylr.errors import InputError
from raylr.remote.copies import with_addresses

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.analysis.scores.scores import Score
    from raylr.analysis.scores.suites import Subject
    from raylr.evaluation.run import Evaluation
    from raylr.evaluation.spec import ScoresSpec

app = cyclopts.App(name="eval", help="Score a checkpoint on MMLU and CMMLU.")


@app.command
def setup(*, env: Path | None = None, engine: Literal["transformers", "turbomind"] = "transformers") -> None:
    """Make OpenCompass's own environment (2 GB, a minute or two).

    An environment that is complete and unchanged is kept; an incomplete one is made again.

    Parameters
    ----------
    env
        Its folder; by default what RAYLR_EVAL_ENV names, otherwise a folder in the user's cache.
    engine
        What computes: transformers, or turbomind (LMDeploy, NVIDIA GPUs).
    """
    from raylr.evaluation.environment import set_up

    with ConsoleListener(make_console()) as listener:
        made = set_up(env, engine=engine, listener=listener)
        shown = ", ".join(f"{name} {made.versions[name]}" for name in ("opencompass", "torch", "transformers"))
        listener.message(f"{made.folder}: Python {made.versions['python']}, {shown}")


@app.default
def evaluate(
    checkpoint: Annotated[Path, Use.READ],
    *,
    suite: str = "mmlu,cmmlu",
    data: Path | None = None,
    subjects: str | None = None,
    limit: int | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json"), Use.WRITE] = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"]), Use.READ] = None,
    backend: str = "opencompass",
    mode: Literal["ppl", "gen"] = "ppl",
    engine: Literal["transformers", "turbomind"] = "transformers",
    allow_fallback: bool = False,
    gpus: int | None = None,
    device: Literal["cpu", "cuda", "auto"] = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    passes: Literal[1, 4] = 1,
    batch_size: int = 8,
    env: Path | None = None,
) -> None:
    """Score a checkpoint on MMLU and CMMLU and show it by subject, category and suite.

    Every question is kept; the same command again scores only what is not scored yet.

    Parameters
    ----------
    checkpoint
        A training checkpoint, a run's folder (its latest checkpoint) or a Hugging Face folder, or the address of one.
    suite
        mmlu, cmmlu, or both with a comma between.
    data
        Folder that holds mmlu/ and cmmlu/ as OpenCompass lays them out; without it OpenCompass's own download.
    subjects
        Names with commas between, such as anatomy or cmmlu/anatomy; each must be in the data folder. Without it: all
        subjects of the suites that the folder has.
    limit
        Questions of each subject, counted from its first.
    json_file
        Write the results there, one flat record for each row of the table.
    out
        Folder of the scored questions (evals.parquet); by default the study that the checkpoint is in, else runs/eval.
    backend
        opencompass (in its own environment: `raylr eval setup`), lm-eval (in this one), or package.module:Class.
    mode
        ppl compares the likelihoods of the letters, gen lets the model write (opencompass only).
    engine
        Of opencompass: transformers, or turbomind (LMDeploy, NVIDIA GPUs).
    allow_fallback
        Use another engine where TurboMind cannot run the model; the results name the engine that ran.
    gpus
        GPUs that TurboMind spreads the model over; by default 1.
    device
        Where transformers computes.
    dtype
        Of the weights in transformers.
    passes
        Forward passes a question in opencompass: 1, or 4 as OpenCompass itself makes them.
    batch_size
        Prompts in one forward pass.
    env
        OpenCompass's environment; by default what RAYLR_EVAL_ENV names, otherwise that of `raylr eval setup`.
    """
    from raylr.evaluation.model import require_folder
    from raylr.evaluation.questions import choose_subjects
    from raylr.evaluation.run import evaluate as run
    from raylr.evaluation.run import study_of
    from raylr.store.files import write_atomic

    require_folder(checkpoint)  # before OpenCompass's environment and questions are looked for
    console = make_console()
    suites, names = _names(suite), None if subjects is None else _names(subjects)
    spec = _spec(
        data=data or _download(suites, names, backend, env, engine, console),
        suites=suites,
        subjects=names,
        limit=limit,
        backend=backend,
        mode=mode,
        engine=engine,
        allow_fallback=allow_fallback,
        gpus=int(engine == "turbomind" or device == "cuda") if gpus is None else gpus,
        device=device,
        dtype=dtype,
        passes=passes,
        batch_size=batch_size,
        env=env,
    )
    chosen, missing = choose_subjects(spec.suites, spec.subjects, spec.data)
    folder = out or study_of(checkpoint) or Path("runs/eval")
    for line in _warnings(missing, chosen):
        say(console, line, style="bold yellow")
    with ConsoleListener(console) as listener:
        try:
            found = run(checkpoint, spec, folder, listener=listener)
        except KeyboardInterrupt:
            say(console, f"Stopped. The questions that were scored are kept in {folder}; the same command continues.")
            raise
    show(found, console)
    for line in _warnings(missing, chosen):
        say(console, line, style="bold yellow")
    if json_file:
        write_atomic(json_file, json.dumps(record(found), indent=1))
        say(console, str(json_file), heading="JSON")


def record(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain JSON values: facts of the run, and in "rows" a flat record for each row shown."""
    info = found.info
    return {
        "checkpoint": found.model.checkpoint,
        "validation_loss": found.model.loss,
        "complete": all(row.complete for row in found.scores.rows),
        "missing": {suite: list(names) for suite, names in found.scores.missing.items()},
        "questions_known_before": found.known,
        "questions_scored": info.questions if info else 0,
        "startup_seconds": info.startup_seconds if info else None,
        "scoring_seconds": info.scoring_seconds if info else None,
        "questions_per_second": found.questions_per_second,
        "seconds": found.seconds,
        "versions": dict(info.versions) if info else {},
        "notes": list(info.notes) if info else [],
        "evals": with_addresses(str(found.evals)),
        "rows": found.scores.flat(),
    }


def show(found: Evaluation, console: Console) -> None:
    """Print the scores of an evaluation, what they are worth, and what it took."""
    from rich.table import Table
    from rich.text import Text

    from raylr.analysis.scores.suites import SUITES
    from raylr.analysis.units import format_count

    scores, model = found.scores, found.model
    facts = [f"run {scores.run}"] if scores.run else []
    facts += [f"{format_count(scores.tokens)} tokens"] if scores.tokens is not None else []
    facts += [scores.phase] if scores.phase else []
    facts += [f"validation loss {model.loss:.4f}"] if model.loss is not None else []
    console.print()
    say(console, ", ".join([scores.checkpoint, *facts]), heading="Model")
    versions = ", ".join(f"{name} {version}" for name, version in found.info.versions.items()) if found.info else ""
    scored_by = f"{scores.backend}, {scores.engine}, {scores.mode}" + (f" ({versions})" if versions else "")
    say(console, scored_by, heading="Scored by")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("subject", "questions", "accuracy %", "", "ln p(right)", "", "guessing"):
        table.add_column(name, justify="left" if name in ("subject", "guessing") else "right", no_wrap=True)
    for suite in SUITES.values():
        rows = [row for row in scores.rows if row.suite == suite.name]
        for index, row in enumerate(rows):
            if row.average != "weighted" and (index == 0 or row.level != rows[index - 1].level):
                table.add_section()
            name = row.name if row.level == "subject" else f"{row.name}, {row.average}"
            name += f" ({row.subjects} of {row.subjects + len(row.missing)} subjects)" if row.missing else ""
            table.add_row(Text(f"{suite.title} {name}" if row.level != "suite" else name), *_cells(row))
    console.print()
    console.print(table)
    console.print()
    legend = "± one standard error; a guess is right in 25 %, with ln p = -1.386; tested at the 1 % level"
    say(console, f"{'':12}{legend}")
    for note in found.info.notes if found.info else ():
        say(console, note, heading="Note")
    say(console, _times(found), heading="Time")
    say(console, str(found.evals), heading="Questions")


def _cells(row: Score) -> list[str]:
    count = f"{row.questions} of {row.full_questions}" if row.questions != row.full_questions else str(row.questions)
    log_prob = [f"{row.log_prob:.3f}", f"± {row.log_prob_stderr:.3f}"] if math.isfinite(row.log_prob) else ["–", ""]
    if log_prob[1] and not math.isfinite(row.log_prob_stderr):
        log_prob[1] = ""
    accuracy = [f"{100 * row.accuracy:.1f}", f"± {100 * row.accuracy_stderr:.1f}"]
    verdict = row.verdict if not row.unanswered else f"{row.verdict}, {row.unanswered} unanswered"
    return [count, *accuracy, *log_prob, verdict]


def _times(found: Evaluation) -> str:
    if found.info is None:
        return f"{found.seconds:.1f} s; all {found.known} questions were scored before"
    info, speed = found.info, found.questions_per_second
    known = f"; {found.known} questions were scored before" if found.known else ""
    return (
        f"{found.seconds:.1f} s: start-up {info.startup_seconds:.1f} s, then {info.questions} questions in "
        f"{info.scoring_seconds:.1f} s, {speed:.1f} questions/s{known}"
    )


def _warnings(missing: dict[str, list[str]], chosen: Sequence[Subject]) -> list[str]:
    from raylr.analysis.scores.suites import SUITES

    return [
        f"{SUITES[suite].title}: {len(names)} of its {len(SUITES[suite].test_questions)} subjects are not in the data; "
        f"averages are over the {sum(subject.suite == suite for subject in chosen)} that are, not the whole suite"
        for suite, names in missing.items()
    ]


def _spec(**fields: Any) -> ScoresSpec:
    import pydantic

    from raylr.evaluation.spec import ScoresSpec
    from raylr.spec import explain

    try:
        return ScoresSpec(**fields)
    except pydantic.ValidationError as error:
        raise InputError(explain(error, ScoresSpec)) from None


def _download(
    suites: Sequence[str],
    names: Sequence[str] | None,
    backend: str,
    env: Path | None,
    engine: str,
    console: Console,
) -> Path:
    from raylr.analysis.scores.suites import resolve
    from raylr.evaluation.backends.opencompass import fetch
    from raylr.evaluation.environment import find

    if backend != "opencompass":
        raise InputError(f"the backend {backend} downloads nothing: name the folder of the questions with --data")
    wanted = list(dict.fromkeys(subject.suite for subject in resolve(suites, names)))
    environment = find(env, engine)
    with tempfile.TemporaryDirectory(prefix="raylr-eval-") as work, console.status("Downloading the questions"):
        return fetch(environment, wanted, Path(work))


def _names(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]
