"""Which side of a corpus a document is on, training or validation, so that nothing of one is on the other.

Three ways, from the best that the sources allow:

* `own`: the sources bring a validation split of their own.
* `documents`: the hash of a document decides, so identical documents are on one side, for any names and any
  order of their files. The lowest `fraction` of the range of hashes is validation.
* `within`: where few or uneven documents make that impossible (one large file), the last `fraction` of each document
  is validation. Between both parts a gap is left out, so that no validation sequence continues a training sequence.

Hashes see exact copies only. `same_text` is the key under which documents that differ in white space alone are equal.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from raylr.trainables.data.sources import Side as Side

Split = Literal["own", "documents", "within"]
NAMES: dict[Split, str] = {"own": "the source's own", "documents": "documents", "within": "ends of documents"}
"""Names in the manifest."""
Part = tuple[Side, str]
UNEVEN = 4.0
"""Where the validation text of whole documents is this many times too little or too much, documents are cut."""
GAP_TOKENS = 2048
"""Most tokens of the gap: the sequence length of many runs. It is at most a tenth of the validation part."""
GAP = 4 * GAP_TOKENS
"""Most characters of the gap: a token is about four characters of English."""
LINE_END = re.compile(r"(?<=\S)\n")
"""Byte-level tokenizers have a border before such a line break: cutting there changes no token."""


def key_of(text: str, seed: int) -> int:
    """Return the document's place in [0, 2^64), from its text and the seed alone."""
    return hash_of(text.encode(), seed)


def hash_of(data: bytes, seed: int) -> int:
    """Return a number in [0, 2^64) from bytes and a seed."""
    salt = seed.to_bytes(8, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, salt=salt).digest(), "little")


def same_text(text: str) -> int:
    """Return a key that two texts share if they differ in white space alone."""
    return hash_of(" ".join(text.split()).encode(), 0)


def cut(text: str, at: int) -> int:
    """Return the last line's end within a tenth of the text before `at`; `at` where there is none."""
    places = [match.start() for match in LINE_END.finditer(text, at - at // 10, at)]
    return places[-1] if places else at


def parts_of(text: str, split: Split, side: Side | None, seed: int, fraction: float) -> tuple[list[Part], int]:
    """Return what of a document is on which side.

    Args:
        text: The document.
        split: Which way.
        side: Its side in the source, for "own"; None: training.
        seed: Seed of the hash.
        fraction: Share of validation.

    Returns:
        The parts, and the characters of the gap between them that are on neither side.
    """
    if split == "own":
        return [(side or "train", text)], 0
    if split == "documents":
        return [("validation" if key_of(text, seed) < int(fraction * 2**64) else "train", text)], 0
    end = cut(text, int(len(text) * (1 - fraction)))
    start = end + min(GAP, (len(text) - end) // 10)
    line = LINE_END.search(text, start, start + (len(text) - start) // 10)
    start = line.start() if line else start
    parts: list[Part] = [("train", text[:end]), ("validation", text[start:])]
    return [(part_side, part) for part_side, part in parts if part], start - end
