"""What was left out of a corpus, and why: files that hold no text, rows without text, lines that cannot be read.

Nothing is left out silently. Everything that a source holds is either a document of the corpus or counted here with its
file, its place in the file and the reason; `write` puts the whole list beside the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from raylr.errors import DataError

OnError = Literal["stop", "skip"]
"""What one record that cannot be read does: ends the build with an error, or is counted and left out."""
SKIPPED = "skipped.jsonl"
"""File of a corpus with all that was left out, one JSON object a line."""
PLACES = 1000
"""Places that are kept for one file and reason; the count goes on beyond."""


@dataclass(kw_only=True)
class Skipped:
    """Parts of one file that were left out for one reason."""

    path: Path
    """The file, or a folder that was left out as a whole."""
    reason: str
    """Why, as the end of a sentence."""
    unit: str
    """What is counted: "file", "line", "row", "document"."""
    count: int = 0
    """How many were left out."""
    places: list[int] = field(default_factory=list)
    """Their numbers in the file from 1 on, at most `PLACES` of them; empty where the whole file was left out."""


class Problems:
    """Collects what is left out while sources are read.

    Args:
        on_error: What a record that cannot be read does.
    """

    def __init__(self, on_error: OnError = "stop") -> None:
        if on_error not in ("stop", "skip"):
            raise DataError(f"on_error={on_error!r} must be 'stop' or 'skip'")
        self.on_error = on_error
        self._found: dict[tuple[Path, str, str], Skipped] = {}
        self._keys: dict[str, list[Path]] = {}

    def chose_key(self, path: Path, key: str) -> None:
        """Keep that the text of a file was taken from a key that the user did not name."""
        self._keys.setdefault(key, []).append(path)

    def notes(self) -> list[str]:
        """Return sentences about what the user did not name and was found."""
        return [
            f"the text is that of key {key!r}, the only one with text, in {len(paths)} file(s) such as {paths[0].name}"
            for key, paths in self._keys.items()
        ]

    def skip(self, path: Path, reason: str, *, unit: str = "file", place: int | None = None, count: int = 1) -> None:
        """Count something that is left out in any case, such as a row without text.

        Args:
            path: The file.
            reason: Why, as the end of a sentence.
            unit: What is counted.
            place: Its number in the file, from 1 on; None: the whole file.
            count: How many.
        """
        found = self._found.setdefault((path, reason, unit), Skipped(path=path, reason=reason, unit=unit))
        found.count += count
        if place is not None and len(found.places) < PLACES:
            found.places.append(place)

    def bad(self, path: Path, reason: str, *, unit: str = "file", place: int | None = None) -> None:
        """Count something that cannot be read, or end with an error.

        Args:
            path: The file.
            reason: What is wrong, as the end of a sentence.
            unit: What is counted.
            place: Its number in the file, from 1 on; None: the whole file.

        Raises:
            DataError: With `on_error="stop"`; the message names the file and the place.
        """
        if self.on_error == "stop":
            where = f"{path}, {unit} {place}" if place is not None else str(path)
            raise DataError(f"{where}: {reason} (--on-error skip leaves out what cannot be read, and lists it)")
        self.skip(path, reason, unit=unit, place=place)

    def __add__(self, other: Problems) -> Problems:
        """Return what either of two left out."""
        both = Problems(self.on_error)
        both._found = {**self._found, **other._found}
        both._keys = {**self._keys, **other._keys}
        return both

    @property
    def all(self) -> list[Skipped]:
        """Everything that was left out, by file."""
        return [self._found[key] for key in sorted(self._found)]

    def counts(self) -> dict[str, int]:
        """Return reason -> how many were left out for it, the most frequent first."""
        out: dict[str, int] = {}
        for one in self.all:
            out[one.reason] = out.get(one.reason, 0) + one.count
        return dict(sorted(out.items(), key=lambda item: -item[1]))

    def write(self, file: Path) -> None:
        """Write everything that was left out as JSON lines."""
        with file.open("w", encoding="utf-8") as out:
            for one in self.all:
                row: dict[str, Any] = {"path": str(one.path), "reason": one.reason, one.unit + "s": one.count}
                if one.places:
                    row["places"] = one.places
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_skipped(corpus: Path) -> list[Skipped]:
    """Return what was left out of the corpus in a folder; empty for one that an older raylr wrote."""
    file = corpus / SKIPPED
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        row = json.loads(line)
        unit = next(key for key in row if key not in ("path", "reason", "places"))
        found.append(
            Skipped(
                path=Path(row["path"]),
                reason=row["reason"],
                unit=unit.removesuffix("s"),
                count=row[unit],
                places=row.get("places", []),
            )
        )
    return found


def summary(skipped: Iterable[Skipped], examples: int = 2) -> list[str]:
    """Return a line for each reason: how many, why, and the first places.

    Args:
        skipped: What was left out.
        examples: Places to name for each reason.
    """
    by_reason: dict[tuple[str, str], list[Skipped]] = {}
    for one in skipped:
        by_reason.setdefault((one.reason, one.unit), []).append(one)
    lines = []
    for (reason, unit), parts in sorted(by_reason.items(), key=lambda item: -sum(part.count for part in item[1])):
        count = sum(part.count for part in parts)
        named = [f"{part.path.name}:{part.places[0]}" if part.places else part.path.name for part in parts[:examples]]
        more = ", …" if count > len(named) else ""
        lines.append(f"{count:,} {unit}{'s' if count > 1 else ''}: {reason} ({', '.join(named)}{more})")
    return lines
