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
from raylr.records.tensorboard import read_event
from raylr.store.files import storage_errors

EVENTS = "*tfevents*"
CONFIGS = ("hparams.yaml", "config.yaml", "config.yml", "config.json", "args.json", "params.json")
MOST_VALUES = 100_000
"""Values of a config file, aliases followed."""
TUNE = "ray/tune/"
"""Begin of the tags that Ray Tune's loggers write; the rest is the key of the report."""
SKIPPED = (" vs samples",)
"""Ends of tags that repeat another tag over another axis (Megatron-LM)."""
SHOWN = 12
"""Tags that a message names."""


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
    settings, reported = dict[str, None](), dict[str, None]()
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
        reported |= dict.fromkeys(tag for values in steps.values() if _useful(values, options) for tag in values)
    if not rows:
        tags = sorted({tag for _, steps in runs.values() for values in steps.values() for tag in values})
        raise DataError(
            f"{path}: no tag of its event files is known as a loss, tokens or an LR; --columns loss=TAG names it "
            f"(tags: {', '.join(tags[:SHOWN]) or 'none'}{', …' if len(tags) > SHOWN else ''})"
        )
    columns = list(dict.fromkeys(["run", *settings, "step", *reported]))
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
    """Return the settings in the folder's name and in a config file in it."""
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
    except (AttributeError, TypeError, KeyError, OverflowError) as error:  # PyYAML's own, of odd scalars and tags
        raise DataError(f"{file} has a value that YAML cannot read: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        return {}
    _refuse_many(file, value)
    return flat(value)


def _refuse_many(file: Path, value: Any) -> None:
    """Raise DataError where aliases of YAML make a few lines more values than memory holds, or hold themselves."""
    stack, count = [value], 0
    while stack:
        one = stack.pop()
        count += 1
        if count > MOST_VALUES:
            raise DataError(f"{file} holds more than {MOST_VALUES:,} values; the settings of a run are fewer")
        stack += list(one.values()) if isinstance(one, dict) else one if isinstance(one, list | tuple) else []


def _read_file(file: Path, config: dict[str, Any], steps: dict[int, dict[str, Any]]) -> None:
    with storage_errors(file, "read"):
        data = file.read_bytes()
    try:
        for record, _ in wire.tf_records(data):
            event = read_event(record)
            config |= event.hyperparameters
            scalars = {
                tag.removeprefix(TUNE): scalar for tag, scalar in event.scalars.items() if not tag.endswith(SKIPPED)
            }
            if scalars:  # a run that was resumed repeats steps: the later counts
                steps.setdefault(event.step, {}).update(scalars)
    except wire.TornError as error:
        raise DataError(f"{file} cannot be read as an event file: {error}") from None
