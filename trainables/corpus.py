"""From text to a tokenised corpus (the folder that `raylr.trainables.data` reads).

Two passes over the sources, so that memory does not grow with the text: the first hashes every document and takes a
sample to train the tokenizer on, the second tokenises. A document's place is decided by the hash of its text and the
seed alone: documents are stored in the order of their hashes (a shuffle), and the lowest `validation_fraction` of the
hash range is validation. Identical documents share a hash, so they are never on both sides; the order and names of
files do not matter.
"""

from __future__ import annotations

import gzip
import hashlib
import heapq
import json
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from raylr.trainables.data import Corpus

MANIFEST = "manifest.json"
EOS = "<|endoftext|>"
KNOWN_EOS = (EOS, "</s>", "<eos>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "[SEP]")
SAMPLE_BYTES = 4_000_000
"""Text on which a tokenizer is trained: more changes small vocabularies little and costs seconds."""
BATCH_BYTES = 4_000_000
"""Text handed to the tokenizer at a time."""
SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})

Progress = Callable[[str, int, int], None]
"""Called with a phase ("read" or "tokenise"), files done and files in all."""


def python_stdlib_sources() -> list[Path]:
    """The .py files of the running Python's standard library, sorted: real text that is always there (about 12 MB).

    Test suites are left out: many distributions do not install them, and the corpus should differ little between
    machines. Raises ValueError where the library is not installed as files.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found = sorted(p for p in root.rglob("*.py") if not SKIPPED_FOLDERS & set(p.relative_to(root).parts))
    if not found:
        raise ValueError(
            f"no .py files under {root}: this Python keeps its library elsewhere; give text files of your own"
        )
    return found


def _files(paths: Sequence[str | Path]) -> list[tuple[Path, bool]]:
    """Files to read and whether each was named itself (and not found in a folder)."""
    out: list[tuple[Path, bool]] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (
                p
                for p in path.rglob("*")
                if p.is_file() and not any(q.startswith(".") for q in p.relative_to(path).parts)
            )
            out += [(p, False) for p in sorted(inside)]
        elif path.is_file():
            out.append((path, True))
        else:
            raise ValueError(f"{path}: no such file or folder")
    if not out:
        raise ValueError(f"no files in {', '.join(map(str, paths)) or 'an empty list of paths'}")
    return out


def _documents(path: Path, named: bool, text_field: str) -> Iterator[str]:
    """The documents of one file; a file found in a folder that is not UTF-8 text has none."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        if text_field not in file.schema_arrow.names:
            raise ValueError(
                f"{path} has no column {text_field!r}; its columns are {', '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(batch_size=1024, columns=[text_field]):
            yield from (text for text in batch.column(0).to_pylist() if text)
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        if name.endswith((".jsonl", ".ndjson")):
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _json_text(line, text_field, f"{path}, line {number}")
            return
        raw = stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if named:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
        return
    if text:
        yield text


def _json_text(line: bytes, text_field: str, where: str) -> str:
    try:
        text = json.loads(line)[text_field]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: not a JSON object with a field {text_field!r}") from error
    if not isinstance(text, str):
        raise ValueError(f"{where}: field {text_field!r} is {type(text).__name__}, not text")
    return text


def _key(text: str, seed: int) -> int:
    """The document's place in [0, 2^64), from its text and the seed alone."""
    return int.from_bytes(
        hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "little", signed=True)).digest(), "little"
    )


def _train_tokenizer(sample: list[str], vocab_size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(alphabet):
        raise ValueError(f"vocab_size={vocab_size} is too small: 256 bytes and the end-of-document token need 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise ValueError(
            f"the text yields a vocabulary of {tokenizer.get_vocab_size()} at most, not vocab_size={vocab_size}: "
            "use more text or "
            "a smaller vocabulary"
        )
    return tokenizer


def _load_tokenizer(file: Path, vocab_size: int | None) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = tokenizer.get_vocab_size()
    if vocab_size is not None and vocab_size < size:
        raise ValueError(f"vocab_size={vocab_size} is below the {size} tokens of {file}")
    return tokenizer


def _eos_id(tokenizer: Tokenizer, eos_token: str | None) -> int:
    for token in [eos_token] if eos_token is not None else KNOWN_EOS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    raise ValueError(
        f"the tokenizer has no end-of-document token ({eos_token or ', '.join(KNOWN_EOS)}): name one as eos_token"
    )


class _Survey:
    """First pass: counts, and a sample of training documents (those with the lowest hashes) for the tokenizer."""

    def __init__(self, seed: int, threshold: int, sample_bytes: int) -> None:
        self.seed, self.threshold, self.wanted, self.held = seed, threshold, sample_bytes, 0
        self.keys: set[int] = set()
        self.documents = self.duplicates = 0
        self.heap: list[tuple[int, str]] = []

    def add(self, text: str) -> None:
        key = _key(text, self.seed)
        self.documents += 1
        if key in self.keys:
            self.duplicates += 1
            return
        self.keys.add(key)
        if key < self.threshold:
            return
        heapq.heappush(self.heap, (-key, text))
        self.held += len(text)
        while self.heap and self.held - len(self.heap[0][1]) >= self.wanted:
            self.held -= len(heapq.heappop(self.heap)[1])

    def sample(self) -> list[str]:
        return [text for _, text in sorted(self.heap, reverse=True)]


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
    """Tokenise files or folders of text, JSON lines (.jsonl, .jsonl.gz) or Parquet into the corpus `out_dir`, and open
    it.

    A text file is one document; JSON lines and Parquet have one a row, in `text_field`. Without `tokenizer` (a
    tokenizer.json) a byte-level BPE of `vocab_size` tokens is trained on a sample of the training documents. The folder
    appears whole or not at all; an `out_dir` that already is this corpus (same arguments, same texts) is kept. Raises
    ValueError for a missing or unreadable source, a vocabulary that cannot be, a split without documents, or an
    `out_dir` that holds something else.
    """
    from raylr.trainables.data import Corpus

    out = Path(out_dir)
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction={validation_fraction} must be above 0 and below 1")
    if tokenizer is None and vocab_size is None:
        raise ValueError("give vocab_size (a tokenizer is trained) or tokenizer (a tokenizer.json)")
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ValueError(f"{out} exists and is not a tokenised corpus: give another folder")
    files, tell = _files(paths), progress or (lambda phase, done, total: None)
    threshold = int(validation_fraction * 2**64)
    survey, source_hash = _Survey(seed, threshold, SAMPLE_BYTES if tokenizer is None else 0), hashlib.sha256()
    for done, (path, named) in enumerate(files, 1):
        for text in _documents(path, named, text_field):
            survey.add(text)
        tell("read", done, len(files))
    keys = np.fromiter(survey.keys, dtype=np.uint64)
    below = int((keys < np.uint64(threshold)).sum())
    if below == 0 or below == len(keys):
        raise ValueError(
            f"{len(keys)} different document(s) leave {len(keys) - below} for training and {below} for validation with "
            f"validation_fraction={validation_fraction}: give more documents, another fraction or another seed"
        )
    keys.sort()
    source_hash.update(keys.tobytes())
    given = {
        "vocab_size": vocab_size,
        "tokenizer": file_hash(_tokenizer_file(tokenizer)) if tokenizer is not None else None,
        "validation_fraction": validation_fraction,
        "seed": seed,
        "eos_token": eos_token,
        "documents": survey.documents,
        "texts": source_hash.hexdigest(),
    }
    if (out / MANIFEST).is_file():
        existing = Corpus.open(out)
        if existing.manifest["built_from"] == given:
            return existing
        raise ValueError(f"{out} is a corpus built from other text or settings: delete it or give another folder")
    bpe = (
        _train_tokenizer(survey.sample(), int(vocab_size or 0))
        if tokenizer is None
        else _load_tokenizer(_tokenizer_file(tokenizer), vocab_size)
    )
    eos = _eos_id(bpe, eos_token)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        counts = _tokenise(files, work, bpe, eos, threshold, seed, text_field, tell)
        bpe.save(str(work / "tokenizer.json"))
        hashes = {name: file_hash(work / name) for name in ("train.bin", "validation.bin", "tokenizer.json")}
        manifest = {
            "format": 1,
            "vocab_size": bpe.get_vocab_size(),
            "eos_id": eos,
            **counts,
            "duplicates": survey.duplicates,
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
        raise ValueError(
            f"tokenizer {path}: no such file (a tokenizer.json of Hugging Face's tokenizers, or its folder)"
        )
    return file


def _tokenise(
    files: list[tuple[Path, bool]],
    work: Path,
    bpe: Tokenizer,
    eos: int,
    threshold: int,
    seed: int,
    text_field: str,
    tell: Progress,
) -> dict[str, Any]:
    """Second pass: ids to a spool in source order, then to the two streams in hash order. Returns counts for the
    manifest."""
    dtype = np.dtype("<u2" if bpe.get_vocab_size() <= 2**16 else "<u4")
    keys: list[int] = []
    lengths: list[int] = []
    sizes: list[int] = []
    with (work / "spool").open("wb") as spool:

        def flush(texts: list[str]) -> None:
            for text, encoding in zip(texts, bpe.encode_batch(texts, add_special_tokens=False), strict=True):
                ids = np.asarray([*encoding.ids, eos], dtype=dtype)
                spool.write(ids.tobytes())
                keys.append(_key(text, seed))
                lengths.append(len(ids))
                sizes.append(len(text.encode()))

        waiting: list[str] = []
        held = 0
        for done, (path, named) in enumerate(files, 1):
            for text in _documents(path, named, text_field):
                waiting.append(text)
                held += len(text)
                if held >= BATCH_BYTES:
                    flush(waiting)
                    waiting, held = [], 0
            tell("tokenise", done, len(files))
        flush(waiting)
    key, length, size = (np.asarray(a, dtype=np.uint64) for a in (keys, lengths, sizes))
    start = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(length)[:-1]])
    order = np.argsort(key, kind="stable")
    ids = np.memmap(work / "spool", dtype=dtype, mode="r")
    split = {"validation": order[key[order] < threshold], "train": order[key[order] >= threshold]}
    for name, documents in split.items():
        _gather(work / f"{name}.bin", ids, start[documents], length[documents])
    del ids
    (work / "spool").unlink()
    return {
        "dtype": dtype.str,
        "documents": {name: len(d) for name, d in split.items()},
        "tokens": {name: int(length[d].sum()) for name, d in split.items()},
        "bytes": {name: int(size[d].sum()) for name, d in split.items()},
    }


def _gather(path: Path, ids: npt.NDArray[Any], start: npt.NDArray[np.uint64], length: npt.NDArray[np.uint64]) -> None:
    with path.open("wb") as out:
        for first, count in zip(start.tolist(), length.tolist(), strict=True):
            out.write(ids[first : first + count].tobytes())
        out.flush()
        os.fsync(out.fileno())


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
