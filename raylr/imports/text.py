"""CSV, JSON lines and JSON files of runs: tables of final losses, histories, exports of W&B."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raylr.errors import DataError
from raylr.imports.options import ImportOptions
from raylr.imports.rows import Row, Rows
from raylr.store.files import storage_errors

CSV, JSON = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json")
DELIMITERS = ",;\t|"
LARGEST = 1 << 31
"""Bytes of a file of runs; a larger one is another thing."""
_PAIR = re.compile(r"(?:^|(?<=[_\-/,; ]))([A-Za-z][A-Za-z_]*?)=([^_,;/ ]+(?:_\d{3})*)")
_LR = re.compile(r"(?<![A-Za-z])lr[_\-]?(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", re.IGNORECASE)


def recognises(path: Path) -> bool:
    """Return whether the path is a text file of runs by its name."""
    return path.suffix.lower() in CSV + JSON and not path.is_dir()


def read(path: Path, options: ImportOptions) -> list[Rows]:
    """Return the rows of a file.

    Raises:
        DataError: If it is no such file; the message names the line.
    """
    with storage_errors(path, "read"):
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST:,} bytes; runs are a smaller table")
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not text in UTF-8 (byte {data[error.start]:#x})") from None
    if "\0" in text:
        raise DataError(f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL byte; not a text file")
    return [_csv(path, text) if path.suffix.lower() in CSV else _json(path, text)]


def _csv(path: Path, text: str) -> Rows:
    lines = text.splitlines()
    head = next((line for line in lines if line.strip()), "")
    if not head:
        raise DataError(f"{path} is empty")
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    names: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = _header(path, [cell.strip() for cell in cells])
                continue
            where = f"{path.name}, line {reader.line_num}"
            if len(cells) != len(names):
                raise DataError(f"{where}: {len(cells)} cells where the header has {len(names)}")
            rows.append(Row(dict(zip(names, cells, strict=True)), where))
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{path} has a header and no rows")
    chart = _chart(path, names, rows)
    return chart or Rows(rows=rows, columns=names, where=path.name)


def _header(path: Path, names: list[str]) -> list[str]:
    if names and not names[0]:
        names[0] = "index"  # of pandas
    twice = [(name, count) for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: the header has the column {twice[0][0]!r} {twice[0][1]} times")
    if all(_is_number(name) for name in names):
        raise DataError(f"{path} has no header: its first line is numbers ({', '.join(names[:4])}); add the names")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _chart(path: Path, names: list[str], rows: list[Row]) -> Rows | None:
    """Return a chart that was exported from W&B (a column "RUN - METRIC" for each run) as evaluations of its runs."""
    wide = [name for name in names[1:] if " - " in name and not name.endswith(("__MIN", "__MAX"))]
    if names[0].lower() not in ("step", "_step", "tokens", "n_tokens") or not wide:
        return None
    out: list[Row] = []
    for name in wide:
        run, _, metric = name.rpartition(" - ")
        about = {"run": run, **named_values(run)}
        out += [
            Row({**about, names[0]: row.values[names[0]], metric: row.values[name]}, row.where)
            for row in rows
            if str(row.values[name]).strip()
        ]
    note = "a chart exported from W&B: the settings are read from the runs' names"
    return Rows(rows=out, columns=_columns(out), where=path.name, history=True, notes=[note])


def _json(path: Path, text: str) -> Rows:
    stripped = text.lstrip()
    if not stripped:
        raise DataError(f"{path} is empty")
    whole: Any = None
    if path.suffix.lower() == ".json" or stripped[0] == "[":
        whole = _parsed(path, text, 1)
    if isinstance(whole, dict) and isinstance(whole.get("log_history"), list):
        return _trainer_state(path, whole["log_history"])
    if isinstance(whole, dict):
        whole = [whole]
    found: Iterable[tuple[int, Any]]
    if whole is not None:
        found = enumerate(whole, 1) if isinstance(whole, list) else [(1, whole)]
        unit = "entry"
    else:
        found = ((n, _parsed(path, line, n)) for n, line in enumerate(text.splitlines(), 1) if line.strip())
        unit = "line"
    rows = []
    for n, value in found:
        if not isinstance(value, dict):
            raise DataError(f"{path.name}, {unit} {n}: not an object of names and values")
        rows.append(Row(flat(value), f"{path.name}, {unit} {n}"))
    return Rows(rows=rows, columns=_columns(rows), where=path.name)


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = getattr(error, "lineno", 1) + line - 1
        raise DataError(f"{path.name}, line {at}: not JSON ({getattr(error, 'msg', error)})") from None


def _trainer_state(path: Path, history: list[Any]) -> Rows:
    """Return the log of a Hugging Face Trainer (trainer_state.json); its settings are those in the folders' names."""
    run = next((part for part in reversed(path.parts[:-1]) if not part.startswith("checkpoint-")), path.stem)
    about = {"run": run, **named_values(run)}
    rows = [
        Row(about | {("current_lr" if k == "learning_rate" else k): v for k, v in flat(entry).items()}, str(path))
        for entry in history
        if isinstance(entry, dict)
    ]
    return Rows(rows=rows, columns=_columns(rows), where=str(path), history=True)


def _columns(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.values))


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested objects as one, the names joined by points; W&B's `{"value": x}` counts as x."""
    out: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and "value" in item and set(item) <= {"value", "desc"}:
            item = item["value"]
        if isinstance(item, Mapping):
            out |= flat(item, f"{prefix}{name}.")
        elif isinstance(item, str | int | float | bool) or item is None:
            out[f"{prefix}{name}"] = item
        else:
            out[f"{prefix}{name}"] = json.dumps(item, default=str)
    return out


def named_values(name: str) -> dict[str, str]:
    """Return the settings that a run's name holds: `lr=3e-4_params=124M`, or `lr3e-4`.

    Example:
        >>> named_values("sweep_lr=3e-4_params=124M")
        {'lr': '3e-4', 'params': '124M'}
    """
    found = dict(_PAIR.findall(name))
    if "lr" not in found and (matched := _LR.search(name)):
        found["lr"] = matched[1]
    return found
