"""Tokenised corpora: memory-mapped ids, a fixed order from a seed, and packing into sequences.

A corpus is a folder: `train.bin` and `validation.bin` hold token ids end to end (little-endian uint16 or uint32), each
document begun by the tokenizer's BOS, if it has one, and closed by the end-of-document token; `manifest.json` holds
counts, hashes and where it came from; `tokenizer.json` the tokenizer; `skipped.jsonl` what of the source was left out.

Notation: n ids in a stream, T sequence length, W = (n - 1) // T windows. Window w is ids[wT : wT + T + 1]: T inputs
and, one further, T targets, so that one pass (an epoch) has each id as an input once and as a target once (but for
fewer than T at the end).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raylr.errors import DataError
from raylr.remote.copies import local_corpus

MANIFEST = "manifest.json"
"""The file of a corpus that is written last and describes the others."""

Ids = npt.NDArray[Any]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _mix(x: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014) of x + key: a good hash of 64 bits."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def shuffled(positions: npt.ArrayLike, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Return elements of a random permutation of range(n), without holding the permutation.

    A Feistel network of 6 rounds over 2^b >= n numbers, applied again until its value is below n. The same (n, seed) is
    always the same permutation; time and memory grow with the number of positions only.

    Args:
        positions: Positions in the permutation.
        n: Length of the permutation.
        seed: Which permutation.

    References:
        Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
    """
    x = np.asarray(positions, dtype=np.uint64)
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = _mix(np.arange(1, 7, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), (seed * 0xD1B54A32D192ED03) % 2**64)
    out, open_ = x.copy(), np.ones(x.shape, dtype=bool)
    while open_.any():
        y = out[open_]
        left, right = y >> shift, y & mask
        for key in keys:
            left, right = right, left ^ (_mix(right, int(key)) & mask)
        out[open_] = (left << shift) | right
        open_ &= out >= np.uint64(n)
    return out.astype(np.int64)


class Windows:
    """Sequences of a stream of ids in an order fixed by a seed: a batch follows from its position alone.

    Args:
        ids: The stream [n].
        seq_len: T.
        seed: Seed of the order; None: the stream's own order.

    Raises:
        DataError: If there is not one window.
    """

    def __init__(self, ids: Ids, seq_len: int, seed: int | None = None) -> None:
        self.ids, self.seq_len, self.seed = ids, seq_len, seed
        self.count = max(0, (len(ids) - 1) // seq_len)
        if not self.count:
            raise DataError(
                f"{len(ids)} token ids do not fill one sequence of {seq_len}: use more text or a smaller seq_len"
            )

    def batch(self, position: int, size: int) -> npt.NDArray[np.int64]:
        """Return windows `position`, ..., `position + size - 1` of the endless order: ids [size, T + 1].

        Each pass over all windows (an epoch) is another permutation of them.
        """
        epochs, places = np.divmod(np.arange(position, position + size), self.count)
        if self.seed is not None:
            for epoch in np.unique(epochs):
                now = epochs == epoch
                places[now] = shuffled(places[now], self.count, self.seed * 1_000_003 + int(epoch))
        rows = places[:, None] * self.seq_len + np.arange(self.seq_len + 1)
        return self.ids[rows].astype(np.int64)


def _manifest(path: Path) -> dict[str, Any]:
    """Read a manifest, and check what `Corpus` takes from it.

    Raises:
        DataError: If it is not one that raylr writes.
    """

    def count(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62

    def counts(value: Any, names: Sequence[str]) -> bool:
        return isinstance(value, dict) and all(count(value.get(name)) for name in names)

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    wrong = ["it is not JSON"] if found is None else [] if isinstance(found, dict) else ["it is not an object"]
    if isinstance(found, dict):
        hashes, prefix = found.get("sha256"), found.get("prefix", [])
        checks = {
            "dtype": found.get("dtype") in ("<u2", "<u4", "uint16", "uint32"),
            "vocab_size": count(found.get("vocab_size")),
            "eos_id": count(found.get("eos_id")),
            "prefix": isinstance(prefix, list) and all(count(one) for one in prefix),
            "fingerprint": isinstance(found.get("fingerprint"), str),
            "tokens": counts(found.get("tokens"), ("train", "validation")),
            "sha256": isinstance(hashes, dict) and all(isinstance(one, str) for one in hashes.values()),
        }
        wrong = [f"{name} is missing or wrong" for name, right in checks.items() if not right]
    if wrong:
        raise DataError(f"{path} is damaged ({wrong[0]}): build the corpus again")
    return dict(found)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A tokenised corpus on disk. Opening reads the manifest only; ids are memory-mapped when they are first used."""

    path: Path
    """The folder."""
    manifest: dict[str, Any]
    """What the folder holds: token counts, hashes of the files, settings of the split, the tokenizer."""

    @classmethod
    def open(cls, path: str | Path) -> Corpus:
        """Open the corpus in a folder, or at an address: it is then fetched to this machine's cache, once.

        Raises:
            DataError: If there is no corpus, if a file does not have the length in the manifest, or if its tokenizer is
                not the one that made its ids.
        """
        folder = local_corpus(path, MANIFEST)
        if not (folder / MANIFEST).is_file():
            raise DataError(f"{folder} is not a tokenised corpus (it has no {MANIFEST}): make one with `raylr data`")
        corpus = cls(path=folder, manifest=_manifest(folder / MANIFEST))
        for split in ("train", "validation"):
            if not corpus._file(split).is_file():
                raise DataError(f"{corpus._file(split)} is missing: build the corpus again")
            size, want = corpus._file(split).stat().st_size, corpus.manifest["tokens"][split] * corpus.dtype.itemsize
            if size != want:
                raise DataError(
                    f"{corpus._file(split)} has {size} bytes, the manifest requires {want}: build the corpus again"
                )
        made_by = corpus.manifest["sha256"].get(corpus.tokenizer_path.name)
        if not corpus.tokenizer_path.is_file() or file_hash(corpus.tokenizer_path) != made_by:
            raise DataError(f"{corpus.tokenizer_path} is not the tokenizer that made this corpus: build it again")
        return corpus

    def _file(self, split: str) -> Path:
        return self.path / f"{split}.bin"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored ids."""
        return np.dtype(str(self.manifest["dtype"]))

    @property
    def vocab_size(self) -> int:
        """Number of ids that the tokenizer can produce."""
        return int(self.manifest["vocab_size"])

    @property
    def eos_id(self) -> int:
        """The end-of-document token."""
        return int(self.manifest["eos_id"])

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens in front of every document: the tokenizer's BOS, or none."""
        return tuple(self.manifest.get("prefix", ()))

    @property
    def fingerprint(self) -> str:
        """Hash of the ids, their split and their tokenizer: training on two corpora that share it gives the same
        result."""
        return str(self.manifest["fingerprint"])

    @property
    def train_tokens(self) -> int:
        """Ids in the training stream."""
        return int(self.manifest["tokens"]["train"])

    @property
    def validation_tokens(self) -> int:
        """Ids in the validation stream."""
        return int(self.manifest["tokens"]["validation"])

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer, in the format of Hugging Face's `tokenizers`."""
        return self.path / "tokenizer.json"

    @cached_property
    def train(self) -> Ids:
        """Training ids [n], memory-mapped."""
        return np.memmap(self._file("train"), dtype=self.dtype, mode="r")

    @cached_property
    def validation(self) -> Ids:
        """Validation ids [n], memory-mapped."""
        return np.memmap(self._file("validation"), dtype=self.dtype, mode="r")
