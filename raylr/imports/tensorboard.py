"""TensorBoard: every folder with event files is a run. Settings come from its hparams, its config file, its name."""

from __future__ import annotations

import json
from collections import ChainMap
from pathlib import Path
from typing import Any

from raylr.errors import DataError
from raylr.imports.names import FIELDS, plain
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Row, Rows
from raylr.imports.text import flat, named_values
from raylr.records import wire
from raylr.store.files import storage_errors

EVENTS = "*tfevents*"
CONFIGS = ("hparams.yaml", "config.yaml", "config.yml", "config.json", "args.json", "params.json")
SKIPPED = (" vs samples",)
"""Ends of tags that repeat another tag over another axis (Megatron-LM)."""


def recognises(path: Path) -> bool:
    """Return whether there are event files in the folder."""
    if path.is_file():
        return "tfevents" in path.name
    return path.is_dir() and next(path.rglob(EVENTS), None) is not None


def read(path: Path, options: ImportOptions) -> list[Rows]:
    """Return the scalars of all runs below a folder, a row per step. Raises DataError for a damaged file."""
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob(EVENTS)) if path.is_dir() else [path]
    folders = sorted({file.parent for file in files}, key=lambda folder: (len(folder.parts), folder))
    runs: dict[Path, tuple[dict[str, Any], dict[int, dict[str, Any]]]] = {}
    for folder in folders:
        parent = next((above for above in folder.parents if above in runs), None)
        config, steps = runs.setdefault(parent or folder, ({}, {}))
        if parent is None:
            config |= _about(folder, root)
        for file in (one for one in files if one.parent == folder):
            _read_file(file, config, steps)
    rows: list[Row] = []
    settings: dict[str, None] = {}
    for folder, (config, steps) in runs.items():
        config = {_apart(name, steps): value for name, value in config.items()}
        settings |= dict.fromkeys(config)
        name = str(folder.relative_to(root)) if folder != root else folder.name
        config["run"] = name
        rows += [
            Row(ChainMap({"step": step, **values}, config), f"{folder}, step {step}")
            for step, values in sorted(steps.items())
            if _useful(values, options)
        ]
    columns = list(dict.fromkeys(["run", *settings, "step", *(k for row in rows for k in row.values.maps[0])]))  # type: ignore[attr-defined]
    return [Rows(rows=rows, columns=columns, where=str(path), history=True, config=frozenset([*settings, "run"]))]


def _useful(values: dict[str, Any], options: ImportOptions) -> bool:
    """Whether a step has a quantity that a run is described by; training logs have hundreds of other tags."""
    wanted = {
        name for field in ("loss", "tokens", "lr", "current_lr") for names in FIELDS[field] for name in names.split()
    }
    return any(name in options.columns.values() or plain(name) in wanted for name in values)


def _apart(name: str, steps: dict[int, dict[str, Any]]) -> str:
    return f"config.{name}" if any(name in values for values in steps.values()) else name


def _about(folder: Path, root: Path) -> dict[str, Any]:
    """Return the settings that stand in the folder's name and in a config file in it."""
    found: dict[str, Any] = {}
    inside = folder.relative_to(root).parts if folder != root else (folder.name,)
    for part in inside:
        found |= named_values(part)
    for name in CONFIGS:
        file = folder / name
        if file.is_file():
            with storage_errors(file, "read"):
                text = file.read_text(encoding="utf-8", errors="replace")
            found |= _config(file, text)
    return found


def _config(file: Path, text: str) -> dict[str, Any]:
    import yaml

    try:
        value = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file}: {' '.join(str(error).split())[:200]}") from None
    return flat(value) if isinstance(value, dict) else {}


def _read_file(file: Path, config: dict[str, Any], steps: dict[int, dict[str, Any]]) -> None:
    with storage_errors(file, "read"):
        data = file.read_bytes()
    try:
        for record in wire.tf_records(data):
            _event(record, config, steps)
    except wire.TornError as error:
        raise DataError(f"{file} cannot be read as an event file: {error}") from None


def _event(record: bytes, config: dict[str, Any], steps: dict[int, dict[str, Any]]) -> None:
    step, summaries = 0, []
    for number, value in wire.fields(record):
        if number == 2 and isinstance(value, int):
            step = value - 2**64 if value >= 2**63 else value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, value in wire.fields(summary):
            if number == 1 and isinstance(value, bytes):
                tag, scalar = _scalar(value, config)
                if tag and scalar is not None and not tag.endswith(SKIPPED):
                    steps.setdefault(step, {})[tag] = scalar  # a run that was resumed repeats steps: the later counts


def _scalar(data: bytes, config: dict[str, Any]) -> tuple[str, float | None]:
    """Return a summary's tag and number (None if it holds none), after taking hyperparameters from it."""
    tag, scalar = "", None
    for number, value in wire.fields(data):
        if number == 1:
            tag = wire.text(value)
        elif number == 2:
            scalar = wire.real(value)
        elif number == 8 and isinstance(value, bytes):
            scalar = _tensor(value)
        elif number == 9 and isinstance(value, bytes):
            _hyperparameters(value, config)
    return tag, scalar


def _tensor(data: bytes) -> float | None:
    """Return the number of a tensor of one element: float_val, double_val, or four or eight bytes of content."""
    kind = 1
    for number, value in wire.fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif (number in (5, 6) and isinstance(value, bytes) and len(value) in (4, 8)) or (
            number == 4 and isinstance(value, bytes) and len(value) == {1: 4, 2: 8}.get(kind)
        ):
            return wire.real(value)
    return None


def _hyperparameters(metadata: bytes, config: dict[str, Any]) -> None:
    """Take what the hparams plugin stores at the start of a session."""
    for number, plugin in wire.fields(metadata):
        if number != 1 or not isinstance(plugin, bytes):
            continue
        parts = dict(wire.fields(plugin))
        if parts.get(1) != b"hparams" or not isinstance(content := parts.get(2), bytes):
            continue
        for kind, session in wire.fields(content):
            if kind != 3 or not isinstance(session, bytes):  # session_start_info
                continue
            for key, entry in wire.fields(session):
                if key == 1 and isinstance(entry, bytes):
                    pair = dict(wire.fields(entry))
                    if isinstance(found := pair.get(2), bytes):
                        config[wire.text(pair.get(1, b""))] = _value(found)


def _value(data: bytes) -> Any:
    """Return a google.protobuf.Value: a number, a text or a truth value."""
    for number, value in wire.fields(data):
        if number == 2:
            return wire.real(value)
        if number == 3:
            return wire.text(value)
        if number == 4:
            return bool(value)
    return None
