"""From text to a tokenised corpus (the folder that `raylr.trainables.data.corpus` reads).

Two passes over the sources, so that memory does not grow with the number of documents: the first hashes every document
and takes a sample to train the tokenizer on, the second tokenises. Documents are stored in the order of their hashes
(a shuffle), so the order and names of files do not matter; `raylr.trainables.data.split` decides which are validation.
A training document that is also a validation document (but for white space) is left out.
"""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raylr.errors import DataError
from raylr.trainables.data.corpus import MANIFEST, Corpus, file_hash
from raylr.trainables.data.problems import OnError, Problems
from raylr.trainables.data.records import documents
from raylr.trainables.data.sources import Source, Sources, find_sources
from raylr.trainables.data.split import NAMES, UNEVEN, Split, cut, key_of, parts_of, same_text
from raylr.trainables.data.tokenizer import Vocabulary, load_tokenizer, tokenizer_file, train_tokenizer
from raylr.trainables.data.writing import new_corpus, write_manifest

SAMPLE_BYTES = 4_000_000
"""Text on which a tokenizer is trained: more changes small vocabularies little and costs seconds."""
BATCH_BYTES = 4_000_000
"""Text handed to the tokenizer at a time."""
SLICES = 64
"""Slices that the sample takes of a document that is longer than the sample."""
PIECE = 1_000_000
"""Characters of a document that the tokenizer gets at a time (its memory is a hundred times its text)."""

Progress = Callable[[str, int, int], None]
"""Called with a phase ("read", "train" or "tokenise"), bytes of the sources done and bytes in all."""


class Document(NamedTuple):
    """A document on its way through a pass."""

    text: str
    source: Source
    number: int
    """Its number among the documents of its file, from 1 on."""
    done: int
    """Bytes of all sources that were read so far."""


class _Survey:
    """First pass: counts, characters of each side, and a sample of training text (of the documents with the lowest
    hashes) for the tokenizer."""

    def __init__(self, texts: Iterable[Document], split: Split, seed: int, fraction: float, wanted: int) -> None:
        self.keys: set[int] = set()
        self.held_out: set[int] = set()
        """Keys of the validation texts (`same_text`), where whole documents are validation."""
        self.documents = 0
        self.characters = {"train": 0, "validation": 0}
        heap: list[tuple[int, str]] = []
        held = 0
        for document in texts:
            self.documents += 1
            key = key_of(document.text, seed)
            known = key in self.keys
            if known and split != "own":
                continue
            self.keys.add(key)
            parts, _ = parts_of(document.text, split, document.source.side, seed, fraction)
            for side, part in parts:
                self.characters[side] += len(part)
                if side == "validation" and split != "within":
                    self.held_out.add(same_text(part))
                elif side == "train" and not known:
                    heapq.heappush(heap, (-key, part))
                    held += len(part)
            while heap and held - len(heap[0][1]) >= wanted:
                held -= len(heapq.heappop(heap)[1])
        self.sample = [one for _, part in sorted(heap, reverse=True) for one in _slices(part, wanted)]

    @property
    def share(self) -> float:
        """Validation's share of the characters."""
        return self.characters["validation"] / max(1, sum(self.characters.values()))


def _slices(text: str, wanted: int) -> list[str]:
    """The text, or, where it is longer than `wanted`, so many characters of it in evenly spaced slices."""
    if len(text) <= wanted:
        return [text]
    return [text[len(text) * i // SLICES :][: wanted // SLICES] for i in range(SLICES)]


def build_corpus(
    paths: Sequence[str | Path],
    out_dir: str | Path,
    *,
    vocab_size: int | None = None,
    tokenizer: str | Path | None = None,
    validation_fraction: float = 0.05,
    validation_within: bool | None = None,
    seed: int = 0,
    text_key: str | None = None,
    eos_token: str | None = None,
    encoding: str = "utf-8",
    on_error: OnError = "stop",
    progress: Progress | None = None,
) -> Corpus:
    """Tokenise text into a corpus, and open it.

    Args:
        paths: Files or folders: text (a file is one document), JSON lines, JSON arrays, Parquet and Arrow (one document
            in each record), each also compressed (.gz, .zst, .xz, .bz2); data sets of Hugging Face.
        out_dir: The folder to make; it appears whole or not at all. A folder that already is this corpus (same
            arguments, same texts) is kept. What was left out is listed in its skipped.jsonl.
        vocab_size: Tokens of the byte-level BPE that is trained on a sample of the training text; with `tokenizer`: the
            largest vocabulary that is accepted.
        tokenizer: A tokenizer.json, or its folder, to use instead.
        validation_fraction: Share of the documents that becomes validation, or of the end of each document where whole
            documents cannot give it. Not used where the source has a validation split of its own.
        validation_within: True: the end of each document is validation. False: whole documents are, or it is an
            error. None: whole documents where they can give `validation_fraction`, otherwise the end of each.
        seed: Seed of the split and of the order.
        text_key: Key or column that holds the text; `a.b` for a nested one. None: "text", or the only one with text.
        eos_token: End-of-document token of `tokenizer`; None: what it puts behind a text, or one of the usual names.
        encoding: Encoding of text and JSON files.
        on_error: Whether a record that cannot be read is an error ("stop") or left out and listed ("skip").
        progress: Is called with a phase ("read", "train" or "tokenise"), bytes of the sources done and bytes in all.

    Returns:
        The corpus.

    Raises:
        DataError: For a missing or unreadable source, a record that cannot be read, a vocabulary that cannot be, too
            little text to split, or an `out_dir` that holds something else.

    Example:
        >>> text = Path("text.txt")
        >>> characters = text.write_text(" ".join(str(number) for number in range(5000)))
        >>> corpus = build_corpus([text], "corpus", vocab_size=300)
        >>> corpus.vocab_size
        300
    """
    out = Path(out_dir)
    if not 0 < validation_fraction < 1:
        raise DataError(f"validation_fraction={validation_fraction} must be above 0 and below 1")
    if tokenizer is None and vocab_size is None:
        raise DataError("give vocab_size (a tokenizer is trained) or tokenizer (a tokenizer.json)")
    refuse_other_folder(out)
    report = progress or (lambda phase, done, total: None)
    listed = Problems(on_error)
    sources = find_sources(paths, listed)
    where = f"{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    problems = listed

    def texts(phase: str) -> Iterator[Document]:
        nonlocal problems
        problems = Problems(on_error)  # each pass finds the same; the last one is kept
        yield from _documents(sources, phase, text_key, encoding, problems, report)

    wanted = SAMPLE_BYTES if tokenizer is None else 0
    split, survey = _choose_split(
        lambda split: _Survey(texts("read"), split, seed, validation_fraction, wanted),
        sources.split,
        validation_within,
        validation_fraction,
    )
    if not all(survey.characters.values()):
        left = "".join(f"; {count} left out: {reason}" for reason, count in (listed + problems).counts().items())
        raise DataError(
            f"{where}: {len(survey.keys)} different document(s) with {sum(survey.characters.values())} characters are "
            f"too little text for training and validation (validation_fraction={validation_fraction}): give more "
            f"text{left}"
        )
    keys = np.fromiter(survey.keys, dtype=np.uint64)
    keys.sort()
    given = {
        "vocab_size": vocab_size,
        "tokenizer": file_hash(tokenizer_file(tokenizer)) if tokenizer is not None else None,
        "validation_fraction": validation_fraction if split != "own" else None,
        "held_out": hashlib.sha256(np.sort(np.fromiter(survey.held_out, dtype=np.uint64)).tobytes()).hexdigest(),
        "split": split,
        "seed": seed,
        "eos_token": eos_token,
        "documents": survey.documents,
        "texts": hashlib.sha256(keys.tobytes()).hexdigest(),
    }
    if (out / MANIFEST).is_file():
        existing = Corpus.open(out)
        if existing.manifest["built_from"] == given:
            return existing
        raise DataError(f"{out} is a corpus built from other text or settings: delete it or give another folder")
    if tokenizer is None:
        report("train", 0, sources.bytes)
        try:
            vocabulary = train_tokenizer(survey.sample, int(vocab_size or 0))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        report("train", sources.bytes, sources.bytes)
    else:
        vocabulary = load_tokenizer(tokenizer_file(tokenizer), vocab_size, eos_token)
    survey.sample.clear()
    with new_corpus(out) as work:
        second = _SecondPass(split, seed, validation_fraction, survey.held_out)
        stream = second.parts(texts("tokenise"), lambda: problems)
        counts = _tokenise(stream, work, vocabulary)
        if second.documents != survey.documents:
            raise DataError(
                f"{survey.documents} documents were read first and {second.documents} then: the files changed meanwhile"
            )
        if not all(counts["tokens"].values()):
            raise DataError(f"{where}: every training document is also a validation document: give other text")
        vocabulary.save(work / "tokenizer.json")
        gap = f"{second.gap:,} characters" if second.gap else ""
        notes = [*sources.notes, *problems.notes(), *split_notes(split, validation_within, validation_fraction, gap)]
        if counts["eos_in_texts"]:
            notes.append(f"{counts['eos_in_texts']:,} end-of-document tokens occur inside texts")
        write_manifest(
            work,
            {
                "vocab_size": vocabulary.size,
                "eos_id": vocabulary.eos_id,
                "prefix": list(vocabulary.prefix),
                **counts,
                "split": NAMES[split],
                "gap_characters": second.gap,
                "duplicates": survey.documents - len(survey.keys),
                "notes": notes,
                "built_from": given,
            },
            listed + problems,
        )
    return Corpus.open(out)


def _documents(
    sources: Sources, phase: str, key: str | None, encoding: str, problems: Problems, report: Progress
) -> Iterator[Document]:
    """Every document of the sources, with progress whenever another hundredth of the bytes was read."""
    total, before, reported = sources.bytes, 0, 0
    report(phase, 0, total)
    for source in sources.files:
        size = source.size
        for number, (text, done) in enumerate(documents(source, key, encoding, problems), 1):
            at = before + min(done, size)
            if (at - reported) * 100 >= total:
                reported = at
                report(phase, min(at, total - 1), total)
            yield Document(text, source, number, at)
        before += size
    report(phase, total, total)


def _choose_split(
    survey: Callable[[Split], _Survey], own: bool, within: bool | None, fraction: float
) -> tuple[Split, _Survey]:
    if own and within is None:
        return "own", survey("own")
    if within:
        return "within", survey("within")
    found = survey("documents")
    if fraction / UNEVEN <= found.share <= min(UNEVEN * fraction, 1 - 1e-9):
        return "documents", found
    if within is False:
        raise DataError(
            f"{len(found.keys)} different document(s) are too few or too uneven: whole documents give "
            f"{found.share:.1%} of the text for validation, {fraction:.1%} are wanted; let the end of each document "
            "be validation (--validation-within)"
        )
    return "within", survey("within")


class _SecondPass:
    """Second pass: the parts of every document, and what of them is left out.

    Args:
        split: The way to split.
        seed: Its seed.
        fraction: Validation's share.
        held_out: Keys of the validation texts.
    """

    def __init__(self, split: Split, seed: int, fraction: float, held_out: set[int]) -> None:
        self.split, self.seed, self.fraction, self.held_out = split, seed, fraction, held_out
        self.documents = self.gap = 0

    def parts(self, texts: Iterable[Document], problems: Callable[[], Problems]) -> Iterator[tuple[int, str, str]]:
        """Yield the key, the side and the text of each part that the corpus holds."""
        seen: set[int] = set()
        for document in texts:
            self.documents += 1
            text, source = document.text, document.source
            parts, gap = parts_of(text, self.split, source.side, self.seed, self.fraction)
            if self.split == "within":
                copy = same_text(text)
                reason = "a copy of another document (but for white space)" if copy in seen else ""
                seen.add(copy)
            else:
                copied = parts[0][0] == "train" and same_text(text) in self.held_out
                reason = "also a validation document (but for white space): not in the training text" if copied else ""
            if reason:
                problems().skip(source.path, reason, unit="document", place=document.number)
                continue
            if gap:
                problems().skip(source.path, "characters between training and validation", unit="character", count=gap)
            self.gap += gap
            key = key_of(text, self.seed)
            yield from ((key, side, part) for side, part in parts)


def refuse_other_folder(out: Path) -> None:
    """Raise DataError if `out` holds something that is not a corpus."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())):
        raise DataError(f"{out} exists and is not a tokenised corpus: give another folder")


def split_notes(split: Split, within: bool | None, fraction: float, gap: str) -> list[str]:
    """Return the sentence about a split that cuts documents.

    Args:
        split: The way of the split.
        within: What the user chose.
        fraction: Validation's share.
        gap: How much is left out between both sides, with its unit.
    """
    if split != "within":
        return []
    why = "" if within else " (whole documents are too few or too uneven for validation)"
    left = f"; {gap} before it are left out" if gap else ""
    return [f"validation is the last {fraction:.1%} of each document{why}{left}"]


def _tokenise(parts: Iterable[tuple[int, str, str]], work: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """Write ids to a spool in source order, then to the two streams in the order of the parts' keys.

    Returns counts for the manifest.
    """
    dtype = np.dtype("<u2" if vocabulary.size <= 2**16 else "<u4")
    begin, end = list(vocabulary.prefix), [vocabulary.eos_id]
    rows: list[tuple[int, bool, int]] = []
    lengths: list[int] = []
    waiting: list[tuple[int, str, bool, bool]] = []
    inside = 0
    with (work / "spool").open("wb") as spool:

        def flush() -> None:
            nonlocal inside
            encodings = vocabulary.tokenizer.encode_batch_fast([one[1] for one in waiting], add_special_tokens=False)
            for (row, _, first, last), encoding in zip(waiting, encodings, strict=True):
                ids = encoding.ids
                inside += ids.count(vocabulary.eos_id)
                stored = np.asarray((begin if first else []) + ids + (end if last else []), dtype=dtype)
                spool.write(stored.tobytes())
                lengths[row] += len(stored)
            waiting.clear()

        held = 0
        for key, side, text in parts:
            rows.append((key, side == "validation", len(text.encode())))
            lengths.append(0)
            first = 0
            while first < len(text):
                last = len(text) if len(text) - first <= PIECE else first + cut(text[first : first + PIECE + 1], PIECE)
                waiting.append((len(rows) - 1, text[first:last], first == 0, last == len(text)))
                held += last - first
                first = last
                if held >= BATCH_BYTES:
                    flush()
                    held = 0
        flush()
    keys, held_out, size = (np.asarray(column) for column in zip(*rows, strict=True))
    length = np.asarray(lengths, dtype=np.uint64)
    start = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(length)[:-1]])
    order = np.argsort(keys.astype(np.uint64), kind="stable")
    ids = np.memmap(work / "spool", dtype=dtype, mode="r")
    sides = {"validation": order[held_out[order]], "train": order[~held_out[order]]}
    for name, chosen in sides.items():
        _gather(work / f"{name}.bin", ids, start[chosen], length[chosen])
    del ids
    (work / "spool").unlink()
    return {
        "dtype": dtype.str,
        "documents": {name: len(chosen) for name, chosen in sides.items()},
        "tokens": {name: int(length[chosen].sum()) for name, chosen in sides.items()},
        "bytes": {name: int(size[chosen].sum()) for name, chosen in sides.items()},
        "eos_in_texts": inside,
    }


def _gather(path: Path, ids: npt.NDArray[Any], start: npt.NDArray[np.uint64], length: npt.NDArray[np.uint64]) -> None:
    with path.open("wb") as out:
        for first, count in zip(start.tolist(), length.tolist(), strict=True):
            out.write(ids[first : first + count].tobytes())
        out.flush()
        os.fsync(out.fileno())
