"""`raylr data`: tokenise text into a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from raylr.cli.console import ConsoleListener, make_console, say
from raylr.errors import DataError
from raylr.events import Counted

_PHASES = {"read": "files read", "tokenise": "files tokenised"}


def data(
    *files: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    vocab_size: int | None = None,
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
        Size of the byte-level BPE vocabulary to train; 2048 without a tokenizer.
    tokenizer
        A tokenizer.json to use instead of training one.
    validation_fraction
        Share of the documents held out for validation.
    seed
        Seed of the split.
    """
    from raylr.analysis.units import format_count
    from raylr.spec.sections import DEFAULT_VOCABULARY
    from raylr.trainables import build_corpus, python_stdlib_sources

    for file in (*files, *([tokenizer] if tokenizer else [])):
        if not file.exists():
            raise DataError(f"there is no {file}")
    console = make_console()
    with ConsoleListener(console) as listener:
        listener.stage("Tokenising")

        def progress(phase: str, done: int, total: int) -> None:
            listener.counted(Counted(what=_PHASES.get(phase, phase), done=done, total=total))

        corpus = build_corpus(
            list(files) or python_stdlib_sources(),
            out,
            vocab_size=vocab_size if vocab_size or tokenizer else DEFAULT_VOCABULARY,
            tokenizer=tokenizer,
            validation_fraction=validation_fraction,
            seed=seed,
            progress=progress,
        )
    say(
        console,
        f"{out}: {format_count(corpus.train_tokens)} training and {format_count(corpus.validation_tokens)} validation "
        f"tokens, vocabulary {corpus.vocab_size}",
    )
