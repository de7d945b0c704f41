"""Streams of token ids from other programs: Megatron's .bin/.idx, Parquet or Arrow tables of ids, folders of Hugging
Face's `datasets`.

`import_corpus` turns any of them into a corpus folder (`raylr.trainables.data.corpus`), which training reads: one
format in the loop. Documents keep their order in the source; which are validation is decided by the hash of their ids,
as for text.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raylr.errors import DataError
from raylr.trainables.data.corpus import MANIFEST, Corpus, file_hash

Ids = npt.NDArray[np.int64]
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
"""Type codes of Megatron-LM's `indexed_dataset.py` (DType)."""


def megatron_documents(prefix: Path) -> Iterator[Ids]:
    """Yield the documents of `prefix`.bin and `prefix`.idx (version 1).

    Raises:
        DataError: For another format, or files whose lengths do not fit.
    """
    index, data = prefix.with_name(prefix.name + ".idx"), prefix.with_name(prefix.name + ".bin")
    if not index.is_file() or not data.is_file():
        raise DataError(f"{prefix}: Megatron data are two files, {index.name} and {data.name}")
    raw = index.read_bytes()
    if raw[:9] != MEGATRON_MAGIC:
        raise DataError(f"{index} is not a Megatron index (it does not begin with MMIDIDX)")
    version, code, sequences, documents = struct.unpack_from("<QBQQ", raw, 9)
    dtype = np.dtype(MEGATRON_TYPES.get(code, "<f4"))
    if version != 1 or dtype.kind not in "iu":
        raise DataError(f"{index}: version {version} with type code {code}; version 1 with integer ids is read")
    at = 9 + struct.calcsize("<QBQQ")
    lengths = np.frombuffer(raw, "<i4", sequences, at).astype(np.int64)
    bounds = np.frombuffer(raw, "<i8", documents, at + 12 * sequences)
    if data.stat().st_size != int(lengths.sum()) * dtype.itemsize:
        required = int(lengths.sum()) * dtype.itemsize
        raise DataError(f"{data} has {data.stat().st_size} bytes, its index requires {required}")
    ids = np.memmap(data, dtype=dtype, mode="r")
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield np.asarray(ids[ends[first] : ends[last]], dtype=np.int64)


def table_documents(path: Path, column: str) -> Iterator[Ids]:
    """Yield the documents of a Parquet file, an Arrow file or stream, or a folder saved by Hugging Face's `datasets`.

    Args:
        path: The file or folder; each row is a document.
        column: Column with lists of token ids.

    Raises:
        DataError: If there is no such file, or no column of lists of integers of that name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        names = sorted(p for p in path.rglob("*") if p.suffix in (".arrow", ".parquet"))
        state = path / "state.json"
        if state.is_file():
            names = [path / entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
        if not names:
            raise DataError(f"{path} has no .arrow or .parquet files")
        for name in names:
            yield from table_documents(name, column)
        return
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        _check_column(path, file.schema_arrow, column)
        batches: Any = file.iter_batches(batch_size=1024, columns=[column])
    else:
        source = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            batches = reader
        _check_column(path, reader.schema, column)
    for batch in batches:
        values = batch.column(batch.schema.get_field_index(column))
        for row in values:
            yield np.asarray(row.values.to_numpy(zero_copy_only=False), dtype=np.int64)


def _check_column(path: Path, schema: Any, column: str) -> None:
    import pyarrow as pa

    if column not in schema.names:
        raise DataError(f"{path} has no column {column!r}; its columns are {', '.join(schema.names)}")
    kind = schema.field(column).type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_integer(kind.value_type):
        raise DataError(f"{path}: column {column!r} is {kind}, not lists of token ids")


def documents(source: Path, column: str) -> Iterator[Ids]:
    """Yield the documents of any format above; Megatron data are named by their prefix or either file."""
    prefix = source.with_suffix("") if source.suffix in (".bin", ".idx") else source
    if prefix.with_name(prefix.name + ".idx").is_file():
        return megatron_documents(prefix)
    return table_documents(source, column)


def import_corpus(
    source: str | Path,
    out_dir: str | Path,
    *,
    tokenizer: str | Path,
    eos_id: int,
    column: str = "input_ids",
    validation_fraction: float = 0.05,
    seed: int = 0,
) -> Corpus:
    """Copy documents of token ids into a corpus.

    Args:
        source: Megatron data, a table, or a folder of Hugging Face's `datasets`.
        out_dir: The new folder; it appears whole or not at all.
        tokenizer: The tokenizer.json that made the ids.
        eos_id: End-of-document token; it is added to documents that do not end with it.
        column: Column of a table that holds the ids.
        validation_fraction: Share of the documents that becomes validation, chosen by the hash of their ids.
        seed: Seed of that choice.

    Returns:
        The corpus.

    Raises:
        DataError: For a source that cannot be read, an id that the tokenizer does not have, a split without documents,
            or an `out_dir` that exists.
    """
    from tokenizers import Tokenizer

    out, vocabulary = Path(out_dir), Path(tokenizer)
    if out.exists():
        raise DataError(f"{out} exists: delete it or give another folder")
    if not vocabulary.is_file():
        raise DataError(f"tokenizer {vocabulary}: no such file")
    vocab_size = Tokenizer.from_file(str(vocabulary)).get_vocab_size()
    dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
    counts = {side: {"documents": 0, "tokens": 0} for side in ("train", "validation")}
    threshold = int(validation_fraction * 2**64)
    salt = seed.to_bytes(8, "little", signed=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with (work / "train.bin").open("wb") as train, (work / "validation.bin").open("wb") as validation:
            for number, ids in enumerate(documents(Path(source), column)):
                if ids.size == 0:
                    continue
                if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
                    raise DataError(
                        f"{source}: document {number} has the id {int(ids.max())}, the tokenizer has {vocab_size} "
                        "tokens: give the tokenizer that made these ids"
                    )
                stored = (ids if ids[-1] == eos_id else np.append(ids, eos_id)).astype(dtype).tobytes()
                key = int.from_bytes(hashlib.blake2b(stored, digest_size=8, salt=salt).digest(), "little")
                side = "validation" if key < threshold else "train"
                (validation if side == "validation" else train).write(stored)
                counts[side]["documents"] += 1
                counts[side]["tokens"] += len(stored) // dtype.itemsize
        if not all(side["documents"] for side in counts.values()):
            raise DataError(
                f"{source}: {counts} with validation_fraction={validation_fraction}: no documents on one side"
            )
        shutil.copyfile(vocabulary, work / "tokenizer.json")
        hashes = {name: file_hash(work / name) for name in ("train.bin", "validation.bin", "tokenizer.json")}
        manifest = {
            "format": 1,
            "vocab_size": vocab_size,
            "eos_id": eos_id,
            "dtype": dtype.str,
            "documents": {side: value["documents"] for side, value in counts.items()},
            "tokens": {side: value["tokens"] for side, value in counts.items()},
            "sha256": hashes,
            "fingerprint": hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest(),
            "built_from": {"source": Path(source).name, "validation_fraction": validation_fraction, "seed": seed},
        }
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
        work.chmod(0o755)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Corpus.open(out)
