"""From text to a tokenised corpus (the folder that `raylr.trainables.data.corpus` reads).

Two passes over the sources, so that memory does not grow with the number of documents: the first hashes every document
and takes a sample to train the tokenizer on, the second tokenises. A document's place is decided by the hash of its
text and the seed alone: documents are stored in the order of their hashes (a shuffle), and the lowest
`validation_fraction` of the hash range is validation. Identical documents share a hash, so they are never on both
sides; the order and names of files do not matter. Where few or uneven documents make that impossible (one large file),
the last `validation_fraction` of each document is validation, cut at the end of a line.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from raylr.errors import DataError
from raylr.trainables.data.corpus import MANIFEST, Corpus, file_hash
from raylr.trainables.data.texts import documents, source_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOS = "<|endoftext|>"
KNOWN_EOS = (EOS, "</s>", "<eos>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "[SEP]")
SAMPLE_BYTES = 4_000_000
"""Text on which a tokenizer is trained: more changes small vocabularies little and costs seconds."""
BATCH_BYTES = 4_000_000
"""Text handed to the tokenizer at a time."""
SLICES = 64
"""Slices that the sample takes of a document that is longer than the sample."""
PIECE = 1_000_000
"""Characters of a document that the tokenizer gets at a time (its memory is a hundred times its text)."""
UNEVEN = 4.0
"""Where the validation text of whole documents is this many times too little or too much, documents are cut."""

Part = tuple[Literal["train", "validation"], str]
Split = Callable[[str, int, float], list[Part]]
Progress = Callable[[str, int, int], None]
"""Called with a phase ("read" or "tokenise"), files done and files in all."""


def _key(text: str, seed: int) -> int:
    """The document's place in [0, 2^64), from its text and the seed alone."""
    return int.from_bytes(
        hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "little", signed=True)).digest(), "little"
    )


def _train_tokenizer(sample: list[str], vocab_size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(alphabet):
        raise DataError(f"vocab_size={vocab_size} is too small: 256 bytes and the end-of-document token need 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise DataError(
            f"the text yields a vocabulary of {tokenizer.get_vocab_size()} at most, not vocab_size={vocab_size}: "
            "use more text or a smaller vocabulary"
        )
    return tokenizer


def _load_tokenizer(file: Path, vocab_size: int | None) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = tokenizer.get_vocab_size()
    if vocab_size is not None and vocab_size < size:
        raise DataError(f"vocab_size={vocab_size} is below the {size} tokens of {file}")
    return tokenizer


def _eos_id(tokenizer: Tokenizer, eos_token: str | None) -> int:
    for token in [eos_token] if eos_token is not None else KNOWN_EOS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    raise DataError(
        f"the tokenizer has no end-of-document token ({eos_token or ', '.join(KNOWN_EOS)}): name one as eos_token"
    )


LINE_END = re.compile(r"(?<=\S)\n")
"""Byte-level tokenizers have a border before such a line break: cutting there changes no token."""


def _cut(text: str, at: int) -> int:
    """Return the last such place within a tenth of the text before `at`; `at` where there is none."""
    places = [match.start() for match in LINE_END.finditer(text, at - at // 10, at)]
    return places[-1] if places else at


def _by_document(text: str, seed: int, fraction: float) -> list[Part]:
    """The whole document, on the side that its hash decides."""
    return [("validation" if _key(text, seed) < int(fraction * 2**64) else "train", text)]


def _at_the_end(text: str, seed: int, fraction: float) -> list[Part]:
    """The document for training but for its last `fraction`, which is validation."""
    end = _cut(text, int(len(text) * (1 - fraction)))
    parts: list[Part] = [("train", text[:end]), ("validation", text[end:])]
    return [(side, part) for side, part in parts if part]


class _Survey:
    """First pass: counts, characters of each side, and a sample of training text (of the documents with the lowest
    hashes) for the tokenizer."""

    def __init__(self, texts: Iterable[str], split: Split, seed: int, fraction: float, wanted: int) -> None:
        self.keys: set[int] = set()
        self.documents = 0
        self.characters = {"train": 0, "validation": 0}
        heap: list[tuple[int, str]] = []
        held = 0
        for text in texts:
            self.documents += 1
            key = _key(text, seed)
            if key in self.keys:
                continue
            self.keys.add(key)
            for side, part in split(text, seed, fraction):
                self.characters[side] += len(part)
                if side == "train":
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
    seed: int = 0,
    text_field: str = "text",
    eos_token: str | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Tokenise text into a corpus, and open it.

    Args:
        paths: Files or folders of text, JSON lines (.jsonl, .jsonl.gz) or Parquet. A text file is one document; JSON
            lines and Parquet have one per row.
        out_dir: The folder to make; it appears whole or not at all. A folder that already is this corpus (same
            arguments, same texts) is kept.
        vocab_size: Tokens of the byte-level BPE that is trained on a sample of the training text; with `tokenizer`: the
            largest vocabulary that is accepted.
        tokenizer: A tokenizer.json, or its folder, to use instead.
        validation_fraction: Share of the documents that becomes validation, or of the end of each document where whole
            documents cannot give it.
        seed: Seed of the split and of the order.
        text_field: Field or column that holds the text.
        eos_token: End-of-document token of `tokenizer`; None: one of the usual names.
        progress: Is called with a phase ("read" or "tokenise"), files done and files in all.

    Returns:
        The corpus.

    Raises:
        DataError: For a missing or unreadable source, a vocabulary that cannot be, too little text to split, or an
            `out_dir` that holds something else.

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
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise DataError(f"{out} exists and is not a tokenised corpus: give another folder")
    files, report = source_files(paths), progress or (lambda phase, done, total: None)

    def texts(phase: str) -> Iterator[str]:
        for done, (path, named) in enumerate(files, 1):
            yield from documents(path, named, text_field)
            report(phase, done, len(files))

    wanted = SAMPLE_BYTES if tokenizer is None else 0
    split: Split = _by_document
    survey = _Survey(texts("read"), split, seed, validation_fraction, wanted)
    if not validation_fraction / UNEVEN <= survey.share <= min(UNEVEN * validation_fraction, 1 - 1e-9):
        split = _at_the_end
        survey = _Survey(texts("read"), split, seed, validation_fraction, wanted)
    if not all(survey.characters.values()):
        raise DataError(
            f"{len(survey.keys)} different document(s) with {sum(survey.characters.values())} characters are too "
            f"little text for training and validation (validation_fraction={validation_fraction}): give more text"
        )
    keys = np.fromiter(survey.keys, dtype=np.uint64)
    keys.sort()
    given = {
        "vocab_size": vocab_size,
        "tokenizer": file_hash(_tokenizer_file(tokenizer)) if tokenizer is not None else None,
        "validation_fraction": validation_fraction,
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
    bpe = (
        _train_tokenizer(survey.sample, int(vocab_size or 0))
        if tokenizer is None
        else _load_tokenizer(_tokenizer_file(tokenizer), vocab_size)
    )
    eos = _eos_id(bpe, eos_token)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        parts = (
            (_key(text, seed), part) for text in texts("tokenise") for part in split(text, seed, validation_fraction)
        )
        counts = _tokenise(parts, work, bpe, eos)
        bpe.save(str(work / "tokenizer.json"))
        hashes = {name: file_hash(work / name) for name in ("train.bin", "validation.bin", "tokenizer.json")}
        manifest = {
            "format": 1,
            "vocab_size": bpe.get_vocab_size(),
            "eos_id": eos,
            **counts,
            "split": "documents" if split is _by_document else "ends of documents",
            "duplicates": survey.documents - len(survey.keys),
            "sha256": hashes,
            "fingerprint": hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
            "built_from": given,
        }
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Corpus.open(out)


def _tokenizer_file(tokenizer: str | Path) -> Path:
    path = Path(tokenizer)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"tokenizer {path}: no such file (a tokenizer.json of Hugging Face's tokenizers, or its folder)"
        )
    return file


def _tokenise(parts: Iterable[tuple[int, Part]], work: Path, bpe: Tokenizer, eos: int) -> dict[str, Any]:
    """Second pass: write ids to a spool in source order, then to the two streams in the order of the parts' keys.

    Returns counts for the manifest.
    """
    dtype = np.dtype("<u2" if bpe.get_vocab_size() <= 2**16 else "<u4")
    rows: list[tuple[int, bool, int]] = []
    lengths: list[int] = []
    waiting: list[tuple[int, str, list[int]]] = []
    with (work / "spool").open("wb") as spool:

        def flush() -> None:
            encodings = bpe.encode_batch([piece for _, piece, _ in waiting], add_special_tokens=False)
            for (row, _, end), encoding in zip(waiting, encodings, strict=True):
                ids = np.asarray(encoding.ids + end, dtype=dtype)
                spool.write(ids.tobytes())
                lengths[row] += len(ids)
            waiting.clear()

        held = 0
        for key, (side, text) in parts:
            rows.append((key, side == "validation", len(text.encode())))
            lengths.append(0)
            first = 0
            while first < len(text):
                last = len(text) if len(text) - first <= PIECE else first + _cut(text[first : first + PIECE + 1], PIECE)
                waiting.append((len(rows) - 1, text[first:last], [eos] if last == len(text) else []))
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
    }


def _gather(path: Path, ids: npt.NDArray[Any], start: npt.NDArray[np.uint64], length: npt.NDArray[np.uint64]) -> None:
    with path.open("wb") as out:
        for first, count in zip(start.tolist(), length.tolist(), strict=True):
            out.write(ids[first : first + count].tobytes())
        out.flush()
        os.fsync(out.fileno())
