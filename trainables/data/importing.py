"""Token ids from other programs, copied into a corpus (the folder that `raylr.trainables.data.corpus` reads).

Documents keep their order in the source. Which are validation is decided as for text
(`raylr.trainables.data.split`), by the hash of their ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raylr.errors import DataError
from raylr.trainables.data.build import Progress, refuse_other_folder, split_notes
from raylr.trainables.data.corpus import MANIFEST, Corpus, file_hash
from raylr.trainables.data.problems import OnError, Problems
from raylr.trainables.data.readers import COLUMN, Ids, id_documents
from raylr.trainables.data.sources import Source, Sources, find_sources
from raylr.trainables.data.split import GAP_TOKENS, NAMES, UNEVEN, Side, Split, hash_of
from raylr.trainables.data.tokenizer import Vocabulary, load_tokenizer, tokenizer_file
from raylr.trainables.data.writing import new_corpus, write_manifest


class _Document(NamedTuple):
    ids: Ids
    """Ids with the end-of-document token."""
    key: int
    """Hash of the ids."""
    source: Source
    number: int


class _Survey:
    """First pass: counts, the tokens of each side, and what the documents begin with."""

    def __init__(self, documents: Iterator[_Document], fraction: float, own: bool, prefix: tuple[int, ...]) -> None:
        self.documents = self.tokens = self.with_prefix = 0
        self.held_out: set[int] = set()
        held_out_tokens = 0
        digest = hashlib.sha256()
        for document in documents:
            self.documents += 1
            self.tokens += len(document.ids)
            self.with_prefix += tuple(document.ids[: len(prefix)].tolist()) == prefix
            digest.update(document.key.to_bytes(8, "little"))
            if document.source.side == "validation" if own else document.key < int(fraction * 2**64):
                self.held_out.add(document.key)
                held_out_tokens += len(document.ids)
        self.share = held_out_tokens / max(1, self.tokens)
        self.digest = digest.hexdigest()


def import_corpus(
    source: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    *,
    tokenizer: str | Path,
    eos_id: int | None = None,
    eos_token: str | None = None,
    column: str = COLUMN,
    validation_fraction: float = 0.05,
    validation_within: bool | None = None,
    seed: int = 0,
    on_error: OnError = "stop",
    progress: Progress | None = None,
) -> Corpus:
    """Copy documents of token ids into a corpus.

    Args:
        source: Megatron data (their prefix or either file), tables of ids, folders of these, or several of them.
        out_dir: The folder to make; it appears whole or not at all. A folder that already is this corpus is kept.
        tokenizer: The tokenizer.json that made the ids, or its folder.
        eos_id: End-of-document token; it is added to documents that do not end with it. None: that of `eos_token`.
        eos_token: The same by name; None: one of the usual names.
        column: Column of a table that holds the ids.
        validation_fraction: Share of validation, as in `build_corpus`.
        validation_within: Whether the end of each document is validation, as in `build_corpus`.
        seed: Seed of the split.
        on_error: Whether a row that cannot be read is an error ("stop") or left out and listed ("skip").
        progress: Is called with a phase ("read" or "copy"), bytes of the sources done and bytes in all.

    Returns:
        The corpus.

    Raises:
        DataError: For a source that cannot be read, an id that the tokenizer does not have, counts that differ from
            the source's own index, a split without documents, or an `out_dir` that holds something else.
    """
    out = Path(out_dir)
    if not 0 < validation_fraction < 1:
        raise DataError(f"validation_fraction={validation_fraction} must be above 0 and below 1")
    refuse_other_folder(out)
    vocabulary = load_tokenizer(tokenizer_file(tokenizer), eos_token=eos_token, eos_id=eos_id)
    listed, report = Problems(on_error), progress or (lambda phase, done, total: None)
    sources = find_sources([source] if isinstance(source, str | Path) else source, listed)
    problems = Problems(on_error)
    documents = _documents(sources, "read", column, vocabulary, seed, problems, report)
    survey = _Survey(documents, validation_fraction, sources.split, vocabulary.prefix)
    split = _choose_split(survey, sources.split, validation_within, validation_fraction)
    given = {
        "tokenizer": file_hash(tokenizer_file(tokenizer)),
        "eos_id": vocabulary.eos_id,
        "validation_fraction": validation_fraction if split != "own" else None,
        "split": split,
        "seed": seed,
        "documents": survey.documents,
        "ids": survey.digest,
        "held_out": hashlib.sha256(np.sort(np.fromiter(survey.held_out, dtype=np.uint64)).tobytes()).hexdigest(),
    }
    if (out / MANIFEST).is_file():
        existing = Corpus.open(out)
        if existing.manifest["built_from"] == given:
            return existing
        raise DataError(f"{out} is a corpus built from other ids or settings: delete it or give another folder")
    notes = list(sources.notes)
    vocabulary, about = _with_the_prefix_of_the_ids(vocabulary, survey)
    notes += about
    with new_corpus(out) as work:
        problems = Problems(on_error)
        documents = _documents(sources, "copy", column, vocabulary, seed, problems, report)
        counts, gap = _copy(documents, work, vocabulary, split, validation_fraction, survey, problems)
        vocabulary.save(work / "tokenizer.json")
        notes += split_notes(split, validation_within, validation_fraction, f"{gap:,} tokens" if gap else "")
        write_manifest(
            work,
            {
                "vocab_size": vocabulary.size,
                "eos_id": vocabulary.eos_id,
                "prefix": list(vocabulary.prefix),
                **counts,
                "split": NAMES[split],
                "notes": notes,
                "built_from": given,
            },
            listed + problems,
        )
    return Corpus.open(out)


def _documents(
    sources: Sources,
    phase: str,
    column: str,
    vocabulary: Vocabulary,
    seed: int,
    problems: Problems,
    report: Progress,
) -> Iterator[_Document]:
    total, before, reported = sources.bytes, 0, 0
    report(phase, 0, total)
    for source in sources.files:
        size = source.size
        for number, (ids, done) in enumerate(id_documents(source, column, problems), 1):
            lowest, highest = int(ids.min()), int(ids.max())
            if lowest < 0 or highest >= vocabulary.size:
                raise DataError(
                    f"{source.path}: document {number} has the id {highest if lowest >= 0 else lowest}, the tokenizer "
                    f"has {vocabulary.size} tokens: give the tokenizer that made these ids"
                )
            stored = ids if ids[-1] == vocabulary.eos_id else np.append(ids, vocabulary.eos_id)
            at = before + min(done, size)
            if (at - reported) * 100 >= total:
                reported = at
                report(phase, min(at, total - 1), total)
            yield _Document(stored, hash_of(stored.astype(_dtype(vocabulary)).tobytes(), seed), source, number)
        before += size
    report(phase, total, total)


def _dtype(vocabulary: Vocabulary) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2" if vocabulary.size <= 2**16 else "<u4")


def _choose_split(survey: _Survey, own: bool, within: bool | None, fraction: float) -> Split:
    if own and within is None:
        return "own"
    even = fraction / UNEVEN <= survey.share <= min(UNEVEN * fraction, 1 - 1e-9)
    if within or (not even and within is None):
        return "within"
    if even:
        return "documents"
    raise DataError(
        f"{survey.documents} document(s) are too few or too uneven: whole documents give {survey.share:.1%} of the "
        f"tokens for validation, {fraction:.1%} are wanted; let the end of each document be validation "
        "(--validation-within)"
    )


def _with_the_prefix_of_the_ids(vocabulary: Vocabulary, survey: _Survey) -> tuple[Vocabulary, list[str]]:
    """The tokenizer as these ids were made: with its BOS if most documents begin with it."""
    if not vocabulary.prefix or survey.with_prefix == survey.documents:
        return vocabulary, []
    shown = " ".join(str(vocabulary.tokenizer.id_to_token(token)) for token in vocabulary.prefix)
    note = f"{survey.with_prefix:,} of {survey.documents:,} documents begin with {shown}, which the tokenizer adds"
    if 2 * survey.with_prefix > survey.documents:
        return vocabulary, [note]
    bare = Vocabulary(tokenizer=vocabulary.tokenizer, eos_id=vocabulary.eos_id)
    return bare, [f"{note}: the corpus' tokenizer does not add it, so that evaluations see what is trained"]


def _copy(
    documents: Iterator[_Document],
    work: Path,
    vocabulary: Vocabulary,
    split: Split,
    fraction: float,
    survey: _Survey,
    problems: Problems,
) -> tuple[dict[str, object], int]:
    """Write both streams; return counts for the manifest and the tokens of the gaps."""
    dtype, counts = _dtype(vocabulary), {side: {"documents": 0, "tokens": 0} for side in ("train", "validation")}
    seen: set[int] = set()
    number = gap = duplicates = 0
    with (work / "train.bin").open("wb") as train, (work / "validation.bin").open("wb") as validation:
        for document in documents:
            number += 1
            own = document.source.side == "validation"
            known = document.key in seen
            seen.add(document.key)
            duplicates += known
            held_out = document.key in survey.held_out
            reason = ""
            parts: list[tuple[Side, Ids]] = [("validation" if held_out else "train", document.ids)]
            if split == "within":
                parts, skipped = _ends(document.ids, fraction, vocabulary.eos_id)
                reason = "a copy of another document" if known else ""
                if skipped and not known:
                    gap += skipped
                    problems.skip(document.source.path, "between training and validation", unit="token", count=skipped)
            elif split == "own" and held_out and not own:
                reason = "also a validation document: not in the training text"
            if reason:
                problems.skip(document.source.path, reason, unit="document", place=document.number)
                continue
            for side, ids in parts:
                (validation if side == "validation" else train).write(ids.astype(dtype).tobytes())
                counts[side]["documents"] += 1
                counts[side]["tokens"] += len(ids)
    if number != survey.documents:
        raise DataError(f"{survey.documents} documents were read first and {number} then: the files changed meanwhile")
    if not all(side["documents"] for side in counts.values()):
        raise DataError(f"{counts} with validation_fraction={fraction}: no documents on one side")
    return {
        "dtype": dtype.str,
        "documents": {side: value["documents"] for side, value in counts.items()},
        "tokens": {side: value["tokens"] for side, value in counts.items()},
        "duplicates": duplicates,
        "gap_tokens": gap,
    }, gap


def _ends(ids: Ids, fraction: float, eos_id: int) -> tuple[list[tuple[Side, Ids]], int]:
    """The document without its last `fraction`, that, and the tokens between them that are on neither side."""
    end = int(len(ids) * (1 - fraction))
    start = end + min(GAP_TOKENS, (len(ids) - end) // 10)
    parts: list[tuple[Side, Ids]] = [("train", ids[:end]), ("validation", ids[start:])]
    return [(side, part) for side, part in parts if part.size], start - end
