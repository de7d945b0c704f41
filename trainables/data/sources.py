"""Which files of a folder hold documents: their formats, their splits, and what is no document.

A file's format follows from its name, without the ending of its compression (.gz, .zst, .xz, .bz2). A folder may be

* any folder of text files, JSON lines, JSON arrays, Parquet or Arrow files;
* a data set as Hugging Face's `datasets` saves it (`save_to_disk`: state.json names the Arrow files that belong to it);
* a data set as it lies on the Hugging Face hub (tables beside README.md and other files about them).

Where the files of a folder carry the names of splits (train, validation, test, by the hub's conventions), the split
is kept: training text comes from the first, validation text from the second, and the test split is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from raylr.errors import DataError
from raylr.trainables.data.problems import Problems

Kind = Literal["text", "lines", "json", "parquet", "arrow", "megatron"]
Side = Literal["train", "validation"]
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
KINDS: dict[str, Kind] = {
    ".jsonl": "lines", ".ndjson": "lines", ".jsonlines": "lines", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
"""Ending of a file's name -> its format; every other file is read as text."""
TABLES = frozenset({"lines", "json", "parquet", "arrow", "megatron"})
"""Formats with a document in each record."""
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".whl")
MANIFEST = "manifest.json"
ABOUT = re.compile(
    r"(readme|license|licence|notice|citation|authors|changelog)(\.\w+)?|dataset_infos?\.json|dataset_dict\.json|state\.json",
    re.IGNORECASE,
)
"""Files beside tables that describe them."""
HUB = (".gitattributes", "dataset_dict.json", "dataset_infos.json", "dataset_info.json")
"""Files that show that a folder is a data set of the Hugging Face hub or of `datasets`."""
SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Words in the names of files and folders -> the split (the keywords of `datasets.data_files`)."""
SPLIT_TEXT = (".txt", ".text", ".tokens", ".raw")
"""Text files whose own names may say a split; test.py of a source tree does not."""
SHARD = re.compile(r"(.*?)(\d{2,})-of-(\d{2,})(.*)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file with documents."""

    path: Path
    kind: Kind
    """Its format."""
    named: bool
    """Whether the user named it; False: it was found in a folder."""
    side: Side | None = None
    """Its split in the source; None: it belongs to none."""

    @property
    def size(self) -> int:
        """Bytes of its documents: those of Megatron's data, not of their index."""
        return (self.path.with_suffix(".bin") if self.kind == "megatron" else self.path).stat().st_size


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files that a corpus is made of."""

    files: tuple[Source, ...]
    notes: tuple[str, ...]
    """What the user should know about them, as sentences."""

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(source.size for source in self.files)

    @property
    def split(self) -> bool:
        """Whether the sources bring a validation split of their own."""
        return any(source.side == "validation" for source in self.files)


def kind_of_file(path: Path) -> Kind:
    """Return the format that a file's name states; Megatron's two files are named by their index."""
    if path.suffix == ".idx" and path.with_suffix(".bin").is_file():
        return "megatron"
    return KINDS.get(_ending(path), "text")


def compression_of(path: Path) -> str | None:
    """Return the ending that names a file's compression; None if it has none."""
    return next((ending for ending in COMPRESSIONS if path.name.lower().endswith(ending)), None)


def _plain_name(path: Path) -> str:
    compression = compression_of(path)
    return path.name[: -len(compression)] if compression else path.name


def _ending(path: Path) -> str:
    return Path(_plain_name(path)).suffix.lower()


def find_sources(paths: Sequence[str | Path], problems: Problems) -> Sources:
    """List the files to read.

    Args:
        paths: Files and folders.
        problems: Receives the files of folders that are left out.

    Returns:
        The files, each once.

    Raises:
        DataError: If a path does not exist, if a data set lacks files that its index names, or if there is no file.
    """
    found: list[Source] = []
    notes: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = _split_of_sources(path, _in_folder(path, problems), problems, notes)
            notes += _missing_shards(inside)
            found += inside
        elif path.is_file() or path.with_name(path.name + ".idx").is_file():
            path = _megatron_index(path)
            if _ending(path) in ARCHIVES:
                raise DataError(f"{path} is an archive: unpack it and give the folder")
            found.append(Source(path=path, kind=kind_of_file(path), named=True))
        else:
            raise DataError(f"there is no {path}: files and folders with text or token ids can be given")
    unique = {source.path.resolve(): source for source in reversed(found)}
    for source in found:
        if unique[source.path.resolve()] is not source:
            problems.skip(source.path, "the same file was given twice")
    files = tuple(source for source in found if unique[source.path.resolve()] is source)
    if not files:
        left = "; ".join(f"{count} left out: {reason}" for reason, count in problems.counts().items())
        named = ", ".join(map(str, paths)) or "an empty list of paths"
        raise DataError(f"no files with documents in {named}{f' ({left})' if left else ''}")
    return Sources(files=files, notes=tuple(notes))


def _megatron_index(path: Path) -> Path:
    """Return the index of Megatron's two files for either of them or their prefix; any other path as it is."""
    for index in (path.with_suffix(".idx") if path.suffix == ".bin" else path, path.with_name(path.name + ".idx")):
        if index.suffix == ".idx" and index.is_file():
            return index
    return path


def _in_folder(folder: Path, problems: Problems) -> list[Source]:
    """All files of a folder that may hold documents, sorted."""
    files: list[Path] = []
    _walk(folder, files, problems, top=True)
    members = _saved_data_sets(files)
    kinds = {file: kind_of_file(file) for file in files}
    hub = any((folder / name).is_file() for name in HUB) or _has_front_matter(folder / "README.md")
    tables = any(
        kind in TABLES and (hub or kind != "json") and not ABOUT.fullmatch(f.name) for f, kind in kinds.items()
    )
    out = []
    for file in files:
        if file.parent in members and file.suffix == ".arrow" and file.name not in members[file.parent]:
            problems.skip(file, "a cache: the data set's state.json does not name it")
        elif (hub or tables) and ABOUT.fullmatch(file.name):
            problems.skip(file, "describes the data beside it")
        elif hub and tables and kinds[file] == "text":
            problems.skip(file, "no table, in the folder of a data set")
        elif _ending(file) in ARCHIVES:
            problems.skip(file, "an archive: unpack it")
        elif file.suffix == ".bin" and file.with_suffix(".idx") in kinds:
            continue  # read through its index
        else:
            out.append(Source(path=file, kind=kinds[file], named=False))
    return out


def _walk(folder: Path, files: list[Path], problems: Problems, *, top: bool = False) -> None:
    if not top and (folder / MANIFEST).is_file() and (folder / "train.bin").is_file():
        problems.skip(folder, "a corpus of raylr", unit="folder")
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        problems.bad(folder, f"cannot be read ({error.strerror})", unit="folder")
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name.startswith("."):
                problems.skip(entry, "hidden", unit="folder")
            elif entry.is_symlink() and entry.resolve() in (folder.resolve(), *folder.resolve().parents):
                problems.skip(entry, "a link to a folder that holds it", unit="folder")
            else:
                _walk(entry, files, problems)
        elif entry.name.startswith("."):
            problems.skip(entry, "hidden")
        elif entry.is_file():
            files.append(entry)
        else:
            problems.skip(entry, "no regular file (a broken link, a socket or a pipe)")


def _saved_data_sets(files: Sequence[Path]) -> dict[Path, set[str]]:
    """Folder of a data set that `datasets` saved -> names of its Arrow files, all of which must be there."""
    out: dict[Path, set[str]] = {}
    for file in files:
        if file.name != "state.json":
            continue
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            names = {str(entry["filename"]) for entry in state["_data_files"]}
        except (ValueError, KeyError, TypeError):
            continue  # another program's state.json
        missing = sorted(name for name in names if not (file.parent / name).is_file())
        if missing:
            raise DataError(f"{file} names {len(names)} files, of which {', '.join(missing)} are missing")
        if state.get("_indices_data_files"):
            raise DataError(f"{file}: a selection of rows by index; save the data set again (`flatten_indices`)")
        out[file.parent] = names
    return out


def _has_front_matter(readme: Path) -> bool:
    """Whether a README begins with YAML, as those on the Hugging Face hub do."""
    try:
        with readme.open("rb") as stream:
            return stream.readline(16).rstrip() == b"---"
    except OSError:
        return False


def split_of_name(folder: Path, source: Source) -> str | None:
    """Return the split that a file's name, or that of a folder above it, states: train, validation, test or None."""
    relative = source.path.relative_to(folder)
    if source.kind == "text" and _ending(source.path) not in SPLIT_TEXT:
        return None
    parts = [relative.name] if source.kind == "text" else list(relative.parts)
    for part in reversed(parts):
        words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", part.lower()) if word in SPLIT_WORDS]
        if words:
            return words[-1]
    return None


def _split_of_sources(folder: Path, sources: list[Source], problems: Problems, notes: list[str]) -> list[Source]:
    """Give the files their sides where the folder has a train split beside others."""
    splits = [split_of_name(folder, source) for source in sources]
    if "train" not in splits or not {"validation", "test"} & set(splits):
        return sources
    out = []
    for source, split in zip(sources, splits, strict=True):
        if split == "test":
            problems.skip(source.path, "the source's test split (name the file itself to read it)")
        else:
            out.append(replace(source, side="validation" if split == "validation" else "train"))
    if "validation" in splits:
        notes.append(f"{folder}: its own validation split is the validation text")
    return out


def _missing_shards(sources: Sequence[Source]) -> list[str]:
    """Sentences about files named 00001-of-00005 of which not all are there."""
    groups: dict[tuple[Path, str, str, str], set[int]] = {}
    for source in sources:
        match = SHARD.fullmatch(source.path.name)
        if match:
            head, number, total, tail = match.groups()
            groups.setdefault((source.path.parent, head, total, tail), set()).add(int(number))
    return [
        f"{parent / head}*: {len(numbers)} of {int(total)} files are there"
        for (parent, head, total, _), numbers in sorted(groups.items())
        if len(numbers) < int(total)
    ]
