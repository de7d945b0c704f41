"""The command line. Heavy imports wait until a command needs them: `raylr --help` answers at once."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import cyclopts
from cyclopts import Parameter

from raylr.cli.check import check
from raylr.cli.console import ConsoleListener, make_console
from raylr.cli.evaluation import app as eval_app
from raylr.errors import EXIT_BAD_INPUT, InputError, nearest

if TYPE_CHECKING:
    from raylr.analysis.laws.lr_law import LRLaw

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

app = cyclopts.App(
    name="raylr",
    help="Which learning rate for a pre-training run you can afford only once, from runs a hundred times cheaper.",
    version_flags=["--version"],
    help_flags=["--help", "-h"],
)
app.command(eval_app)
app.command(check)


@app.command
def search(spec: Path | None = None, *, out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None) -> None:
    """Search the LR of small models, fit the law, predict the LR of the target and check it there.

    Run again it goes on where it was; finished it answers at once.

    Parameters
    ----------
    spec
        The study's spec (YAML). Without one: the quickstart, on the Python standard library's own sources.
    out
        The study's folder; by default runs/ and the name of the spec's file.
    """
    from rich.console import Console

    from raylr.quickstart import quickstart_spec
    from raylr.report.html import write_report
    from raylr.report.text import show_result
    from raylr.spec import load_spec, summary
    from raylr.study import FittingStudy

    console = make_console()
    asked = load_spec(spec) if spec else quickstart_spec()
    folder = out or Path("runs") / (spec.stem if spec else asked.name)
    with ConsoleListener(console) as progress:
        study = FittingStudy(asked, folder, progress=progress)
        said = study.ending()
        if said is not None:
            console.print(f"{folder} is finished; nothing was run.", highlight=False)
            console.print(said, end="", highlight=False, markup=False, soft_wrap=True)
            return
        progress.stage(f"Study {asked.name} in {folder}: {summary(asked)}")
        try:
            result = study.run()
        except KeyboardInterrupt:
            again = f"raylr search{f' {spec}' if spec else ''}{f' --out {out}' if out else ''}"
            console.print(
                f"Stopped. Everything measured is kept in {folder}; `{again}` goes on.", highlight=False, soft_wrap=True
            )
            raise SystemExit(EXIT_INTERRUPTED) from None
        progress.stage("Writing the report")
        report = write_report(result)
    show_result(result, report, console)
    text = io.StringIO()
    show_result(result, report, Console(file=text, width=console.width))
    study.end(text.getvalue())


@app.command
def fit(study: Path) -> None:
    """Fit the laws of a study again, from its run table alone, and show them.

    Parameters
    ----------
    study
        A study's folder.
    """
    from raylr.report.text import show_result
    from raylr.study import FittingStudy

    show_result(FittingStudy.open(study).result(), None, make_console())


@app.command
def predict(
    law: str,
    *,
    params: str,
    tokens: str,
    level: float = 0.9,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Predict the optimal LR at a model size and a token budget.

    Parameters
    ----------
    law
        A study's folder, a law.json, or the name of a published law (zhou2026, …).
    params
        Parameters of the model, as the law counts them: 12e9 or 12B.
    tokens
        Training tokens: 500e9 or 500B.
    level
        Coverage of the interval.
    as_json
        Print JSON.
    """
    from raylr.analysis.units import parse_count
    from raylr.report.text import show_prediction

    fitted = _law(law)
    if not 0 < level < 1:
        raise InputError(f"--level is a coverage between 0 and 1, got {level:g}")
    counts = {}
    for name, text in (("--params", params), ("--tokens", tokens)):
        try:
            counts[name] = parse_count(text)
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
    prediction = fitted.predict(counts["--params"], counts["--tokens"], level=level)
    if as_json:
        fields = dataclasses.asdict(prediction)
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
        print(json.dumps(plain, indent=2))
    else:
        show_prediction(fitted, prediction, make_console())


@app.command
def report(study: Path) -> None:
    """Write the report of a study again, from its run table alone: report.html, and figures/ as PNG and SVG.

    Parameters
    ----------
    study
        A study's folder.
    """
    from raylr.report.html import write_report
    from raylr.study import FittingStudy

    path = write_report(FittingStudy.open(study).result())
    make_console().print(f"Report: {path}", highlight=False, soft_wrap=True)


@app.command
def data(
    *files: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    vocab_size: int = 2048,
    tokenizer: Path | None = None,
    validation_fraction: float = 0.02,
    seed: int = 0,
) -> None:
    """Tokenise text, JSONL or Parquet files into a corpus folder that a spec can name.

    Parameters
    ----------
    files
        Files or folders; none: the Python standard library's own sources.
    out
        The corpus folder to make.
    vocab_size
        Size of the byte-level BPE vocabulary to train.
    tokenizer
        A tokenizer.json to use instead of training one.
    validation_fraction
        Share of the documents held out for validation.
    seed
        Seed of the split.
    """
    from raylr.analysis.units import format_count
    from raylr.trainables import build_corpus, python_stdlib_sources

    for file in (*files, *([tokenizer] if tokenizer else [])):
        if not file.exists():
            raise InputError(f"there is no {file}")
    console = make_console()
    with console.status("Tokenising"):
        corpus = build_corpus(
            list(files) or python_stdlib_sources(),
            out,
            vocab_size=vocab_size,
            tokenizer=tokenizer,
            validation_fraction=validation_fraction,
            seed=seed,
        )
    console.print(
        f"{out}: {format_count(corpus.train_tokens)} training and {format_count(corpus.validation_tokens)} validation "
        f"tokens, vocabulary {corpus.vocab_size}",
        highlight=False,
    )


@app.command
def export(
    path: Path,
    *,
    hf: Path | None = None,
    optuna: str | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Export a training checkpoint as a Hugging Face model (--hf), or a study's runs for optuna-dashboard (--optuna).

    Parameters
    ----------
    path
        With --hf: a checkpoint, a run's folder (its latest checkpoint) or a Ray Tune trial's; with --optuna: a study's
        folder.
    hf
        The folder to make, for transformers 4.57 and 5, OpenCompass, lm-eval, LMDeploy and vLLM.
    optuna
        The storage's URL, such as sqlite:///study.db; one Optuna study per model size.
    dtype
        Of the exported weights; by default as the model ran.
    tokenizer
        A tokenizer.json, for checkpoints that hold none.
    """
    if hf is not None and optuna is None:
        from raylr.trainables.export.hf import export_checkpoint

        made = export_checkpoint(path, hf, dtype=dtype, tokenizer=tokenizer)
        make_console().print(f"{made}: a Hugging Face model", highlight=False, soft_wrap=True)
        return
    if optuna is None or hf is not None:
        raise InputError("give --hf DIR (a checkpoint to Hugging Face) or --optuna URL (a study's runs to Optuna)")
    if dtype is not None or tokenizer is not None:
        raise InputError("--dtype and --tokenizer go with --hf, not with --optuna")

    from optuna.logging import WARNING, set_verbosity

    from raylr.searchers.optuna import export as export_runs
    from raylr.study import FittingStudy

    opened = FittingStudy.open(path)
    spec = opened.spec
    set_verbosity(WARNING)
    names = export_runs(opened.finished_runs(), optuna, name=spec.name, lr_range=(spec.lr.low, spec.lr.high))
    make_console().print(f"{optuna}: {len(names)} studies, {', '.join(names)}", highlight=False, soft_wrap=True)


@app.command
def init(path: Path = Path("study.yaml")) -> None:
    """Write the quickstart's spec, commented, as a start for your own.

    Parameters
    ----------
    path
        The file to write; it must not exist yet.
    """
    from raylr.quickstart import QUICKSTART_YAML

    if path.exists():
        raise InputError(f"{path} exists already; name another file")
    path.write_text(QUICKSTART_YAML)
    make_console().print(f"Wrote {path}; edit it, then run `raylr search {path}`.", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Exit status 2 for bad input, 130 after Ctrl-C; RAYLR_DEBUG=1 shows tracebacks."""
    debug = bool(os.environ.get("RAYLR_DEBUG"))
    try:
        app(arguments, exit_on_error=False, print_error=True)
    except cyclopts.CycloptsError:
        raise SystemExit(EXIT_BAD_INPUT) from None
    except InputError as error:
        if debug:
            raise
        _fail(str(error), EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if debug or not isinstance(error, ValueError | OSError | RuntimeError):
            raise
        if isinstance(error, ValueError):
            _fail(str(error), EXIT_BAD_INPUT)
        _fail(f"{error} (RAYLR_DEBUG=1 shows where)", 1)


def _law(name: str) -> LRLaw:
    """Return the law of a study's folder, of a law.json, or of that name."""
    from raylr.analysis.laws import presets
    from raylr.analysis.laws.lr_law import LRLaw
    from raylr.study import LAW_FILE, FittingStudy

    path = Path(name)
    if path.is_dir():
        return FittingStudy.open(path).fit().law
    if path.is_file():
        try:
            return LRLaw.from_json(path.read_text())
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} holds no law ({error}); a study writes one to {LAW_FILE}") from None
    if "/" in name or name.endswith(".json"):
        raise InputError(
            f"there is no {name}; give a study's folder, a {LAW_FILE} or one of {', '.join(presets.names())}"
        )
    if name not in presets.names():
        raise InputError(f"{name!r} is neither a study's folder nor a published law{nearest(name, presets.names())}")
    return presets.get(name)


def _fail(message: str, status: int) -> NoReturn:
    print(f"raylr: {message}", file=sys.stderr)
    raise SystemExit(status)
