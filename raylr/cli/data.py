"""`raylr data`: text or token ids to a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from raylr.cli.console import ConsoleListener, make_console, say
from raylr.events import Counted

_PHASES = {
    "read": "bytes read",
    "train": "bytes, training the tokenizer",
    "tokenise": "bytes tokenised",
    "copy": "bytes copied",
}


def data(
    *files: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    vocab_size: int | None = None,
    tokenizer: Path | None = None,
    text_key: str | None = None,
    ids_column: str | None = None,
    eos_token: str | None = None,
    encoding: str = "utf-8",
    on_error: Literal["stop", "skip"] = "stop",
    validation_fraction: float = 0.02,
    validation_within: Annotated[bool | None, Parameter(negative="--no-validation-within")] = None,
    seed: int = 0,
) -> None:
    """Make a corpus folder, which a spec can name, of text or token ids.

    Text: text files, JSONL, JSON arrays, Parquet, Arrow, also compressed (.gz, .zst, .xz, .bz2), and Hugging Face data
    sets. Token ids: Megatron's .bin/.idx, Parquet and Arrow. What is left out is listed with its reason.

    Parameters
    ----------
    files
        Files or folders; none: the Python standard library's own sources.
    out
        The corpus folder to make.
    vocab_size
        Size of the byte-level BPE vocabulary to train; 2048 without a tokenizer.
    tokenizer
        A tokenizer.json to use instead of training one; token ids need the one that made them.
    text_key
        Key or column that holds the text, a.b for a nested one; "text", or the only one with text.
    ids_column
        Column of tables that holds token ids; input_ids.
    eos_token
        The tokenizer's end-of-document token; what it puts behind a text, or one of the usual names.
    encoding
        Encoding of text and JSON files, such as gb18030.
    on_error
        Whether a line or row that cannot be read is an error, or left out and listed.
    validation_fraction
        Share of the documents held out for validation.
    validation_within
        Hold out the end of each document instead of whole documents (or, with --no-, never); the default where there
        are too few documents.
    seed
        Seed of the split.
    """
    from raylr.analysis.units import format_count
    from raylr.spec.sections import DEFAULT_VOCABULARY
    from raylr.store.places import local_folder
    from raylr.trainables import make_corpus, python_stdlib_sources
    from raylr.trainables.data.problems import SKIPPED, read_skipped, summary

    console, out = make_console(), local_folder(out, "a corpus that `raylr data` makes")
    with ConsoleListener(console) as listener:

        def progress(phase: str, done: int, total: int) -> None:
            listener.counted(Counted(what=_PHASES[phase], done=done, total=total))

        corpus = make_corpus(
            list(files) or python_stdlib_sources(),
            out,
            vocab_size=vocab_size if vocab_size or tokenizer else DEFAULT_VOCABULARY,
            tokenizer=tokenizer,
            text_key=text_key,
            ids_column=ids_column,
            eos_token=eos_token,
            encoding=encoding,
            on_error=on_error,
            validation_fraction=validation_fraction,
            validation_within=validation_within,
            seed=seed,
            progress=progress,
        )
    manifest = corpus.manifest
    skipped = read_skipped(out)
    if skipped:
        say(console, f"Left out, all of it listed in {out / SKIPPED}:")
        for line in summary(skipped):
            say(console, f"  {line}")
    for note in manifest.get("notes", ()):
        say(console, f"Note: {note}.")
    documents = manifest["documents"]
    say(
        console,
        f"{out}: {documents['train']:,} and {documents['validation']:,} documents, {format_count(corpus.train_tokens)} "
        f"training and {format_count(corpus.validation_tokens)} validation tokens, vocabulary {corpus.vocab_size}",
    )
