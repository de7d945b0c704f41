"""`Board`: what a page shows at the moment, in blocks, and which of them a reader has not seen yet."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a page: HTML, or a figure with the HTML around it."""

    id: str
    """Stays the same while the piece is about the same thing."""
    html: str
    figure: dict[str, Any] | None = None
    """What `raylr.analysis.figures.interactive.describe` returned; None for HTML alone."""


class Board:
    """The blocks of a page by areas; threads may write and read it at once.

    Args:
        areas: Names of the areas from the top of the page to its end.

    Example:
        >>> board = Board(["top", "end"])
        >>> board.put("end", [Block(id="law", html="<p>none</p>")])
        >>> found = board.news()
        >>> found["order"], found["blocks"]
        (['law'], {'law': {'html': '<p>none</p>'}})
        >>> board.news(found["server"], found["version"])["blocks"]
        {}
    """

    def __init__(self, areas: Sequence[str]) -> None:
        self.server = uuid.uuid4().hex
        """Names this board, so that a reader of an earlier one gets everything again."""
        self._lock = threading.Lock()
        self._version = 0
        self._areas: dict[str, list[str]] = {area: [] for area in areas}
        self._blocks: dict[str, tuple[int, str, dict[str, Any]]] = {}
        """Id → the version with which it came, its text, its content."""
        self.title = ""

    def put(self, area: str, blocks: Iterable[Block]) -> None:
        """Put these blocks in place of those of an area; ids are unique on the whole page."""
        made = [(block.id, _content(block)) for block in blocks]
        texts = {name: json.dumps(content, allow_nan=False) for name, content in made}
        with self._lock:
            before, after = self._areas[area], [name for name, _ in made]
            changed = [name for name in after if self._blocks.get(name, (0, "", {}))[1] != texts[name]]
            if before == after and not changed:
                return
            self._version += 1
            self._areas[area] = after
            for name in set(before) - set(after):
                del self._blocks[name]
            for name, content in made:
                if name in changed:
                    self._blocks[name] = (self._version, texts[name], content)

    def news(self, server: str = "", version: int = -1) -> dict[str, Any]:
        """Return what has changed since a version, in JSON's types.

        Args:
            server: `server` of the answer that the reader has; that of another board gives everything again.
            version: `version` of that answer.

        Returns:
            `server`, `version`, `now` (seconds since 1970), `title`, `order` (ids of all blocks), and `blocks`: id →
            {"html", "figure"} of those that are new or have changed.
        """
        with self._lock:
            if server != self.server:
                version = -1
            order = [name for names in self._areas.values() for name in names]
            blocks = {name: self._blocks[name][2] for name in order if self._blocks[name][0] > version}
            return {"server": self.server, "version": self._version, "now": time.time(), "title": self.title,
                    "order": order, "blocks": blocks}  # fmt: skip


def _content(block: Block) -> dict[str, Any]:
    return {"html": block.html} | ({} if block.figure is None else {"figure": block.figure})
