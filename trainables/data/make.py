"""Text or token ids, whichever the sources hold, to a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raylr.errors import DataError
from raylr.trainables.data.build import Progress, build_corpus
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.data.importing import import_corpus
from raylr.trainables.data.problems import OnError, Problems
from raylr.trainables.data.readers import COLUMN, has_ids
from raylr.trainables.data.sources import find_sources


def make_corpus(
    paths: Sequence[str | Path],
    out_dir: str | Path,
    *,
    vocab_size: int | None = None,
    tokenizer: str | Path | None = None,
    validation_fraction: float = 0.05,
    validation_within: bool | None = None,
    seed: int = 0,
    text_key: str | None = None,
    ids_column: str | None = None,
    eos_token: str | None = None,
    encoding: str = "utf-8",
    on_error: OnError = "stop",
    progress: Progress | None = None,
) -> Corpus:
    """Make a corpus of files and folders that hold text (`build_corpus`) or token ids (`import_corpus`).

    Args:
        paths: Files and folders. Token ids are Megatron's .bin/.idx, and tables with a column of lists of integers
            that is named by `ids_column`, or called input_ids where there is no column "text".
        out_dir: The folder to make.
        vocab_size: As in `build_corpus`.
        tokenizer: A tokenizer.json, or its folder; token ids need the one that made them.
        validation_fraction: As in `build_corpus`.
        validation_within: As in `build_corpus`.
        seed: As in `build_corpus`.
        text_key: As in `build_corpus`.
        ids_column: Column of tables that holds token ids.
        eos_token: End-of-document token of `tokenizer`.
        encoding: As in `build_corpus`.
        on_error: As in `build_corpus`.
        progress: As in `build_corpus`.

    Returns:
        The corpus.

    Raises:
        DataError: As by these two functions, and if some files hold text and others token ids.

    Example:
        >>> characters = Path("text.txt").write_text(" ".join(str(number) for number in range(5000)))
        >>> make_corpus(["text.txt"], "corpus", vocab_size=300).vocab_size
        300
    """
    files = find_sources(paths, Problems(on_error)).files
    ids = [source.path for source in files if text_key is None and has_ids(source, ids_column)]
    if not ids:
        if ids_column is not None:
            raise DataError(f"no file has a column {ids_column!r} with lists of token ids")
        return build_corpus(
            paths,
            out_dir,
            vocab_size=vocab_size,
            tokenizer=tokenizer,
            validation_fraction=validation_fraction,
            validation_within=validation_within,
            seed=seed,
            text_key=text_key,
            eos_token=eos_token,
            encoding=encoding,
            on_error=on_error,
            progress=progress,
        )
    if len(ids) < len(files):
        other = next(source.path for source in files if source.path not in ids)
        raise DataError(f"{ids[0]} holds token ids and {other} does not: make a corpus of one kind")
    if tokenizer is None:
        raise DataError(f"{ids[0]} holds token ids: give the tokenizer that made them (--tokenizer tokenizer.json)")
    return import_corpus(
        paths,
        out_dir,
        tokenizer=tokenizer,
        eos_token=eos_token,
        column=ids_column or COLUMN,
        validation_fraction=validation_fraction,
        validation_within=validation_within,
        seed=seed,
        on_error=on_error,
        progress=progress,
    )
