"""What the report of a study would say now, computed in a process of its own.

A fit may take minutes and most of a core. In a process it does not slow the page down, gives way to the study that runs
on the same machine, and can be ended at any time, also inside a library.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raylr.errors import InputError, RaylrError
from raylr.live.board import Block
from raylr.remote.copies import place_of, with_addresses
from raylr.report.html import content
from raylr.report.page import DescribedFigures
from raylr.studies import open_study

NICE = 10
"""How much the process gives way to others: the study's trials have 0."""
_FIGURE = re.compile(r'(<figure id="([^"]+)">.*?</figure>)', re.DOTALL)
_HEADING = re.compile(r"<h2>(.*?)</h2>")
_NOT_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was computed, or why nothing was."""

    answer: str = ""
    """HTML."""
    sections: list[Block] = field(default_factory=list)
    problem: str = ""
    """Why there is no answer yet, in a sentence."""
    unread: str = ""
    """Why the folder could not be read, in a sentence; it may be different the next time."""
    bug: str = ""
    """An error of raylr itself, in a sentence."""
    trace: str = ""
    """Its traceback."""


def answer_of(place: Path | str) -> Found:
    """Return what the report of the study in a folder would say now; failures are in what is returned.

    Args:
        place: The study's folder, or its address.
    """
    try:
        study = open_study(place)
        found = content(study.result())
        figures = DescribedFigures(found.figures)
        sections = blocks_of(found.sections(figures), figures)
    except InputError as error:
        return Found(problem=sentence(error))
    except (RaylrError, OSError) as error:
        return Found(unread=sentence(error))
    except Exception as error:
        return Found(bug=bug_of(error), trace=traceback.format_exc())
    return Found(answer=found.answer, sections=[*sections, Block(id="footer", html=_footer(found.footer))])


class Child:
    """Calls `answer_of` in a process of its own, one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._ended = False

    def __call__(self, place: Path) -> Found:
        """Return what `answer_of` returns there."""
        words = [sys.executable, "-m", "raylr.live.answer", place_of(place)]
        # A session of its own: Ctrl-C in the terminal ends this process, which then ends that one.
        self._process = subprocess.Popen(
            words, text=True, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        if self._ended:
            self.end()
        printed, _ = self._process.communicate()
        if self._process.returncode != 0:
            return Found(unread=f"The computation ended with status {self._process.returncode}.")
        data = json.loads(printed)
        return Found(**data | {"sections": [Block(**block) for block in data["sections"]]})

    def end(self) -> None:
        """End the process, and that of every later call."""
        self._ended = True
        if self._process is not None:
            self._process.kill()


def blocks_of(pieces: Iterable[str], figures: DescribedFigures) -> list[Block]:
    """Return the sections of a report as blocks, each figure a block of its own.

    The id of a block is the heading above it and its place below that, so that it stays when other sections come.

    Args:
        pieces: HTML of the sections, in pieces.
        figures: The figures in them.
    """
    blocks: list[Block] = []
    section, place, sections = "top", 0, Counter[str]()
    for piece in pieces:
        parts = _FIGURE.split(piece)  # HTML, figure, its id, HTML, …
        for text, figure, name in zip(parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True):
            if text.strip():
                if heading := _HEADING.search(text):
                    name_of = _NOT_WORD.sub("-", heading[1].lower()).strip("-")
                    sections[name_of] += 1
                    section, place = f"{name_of}-{sections[name_of]}", 0
                blocks.append(Block(id=f"{section}-{place}", html=text))
                place += 1
            if figure:
                blocks.append(Block(id=f"figure-{name}", html=figure, figure=figures.data[name]))
    return blocks


def sentence(error: Exception) -> str:
    """Return what an error says, as one sentence."""
    if isinstance(error, OSError) and not isinstance(error, RaylrError):
        text = f"cannot read {error.filename or 'the folder'}: {error.strerror or error}"
    else:
        text = " ".join(str(error).split())
    text = with_addresses(text)
    return text if text.endswith((".", "!", "?")) else f"{text}."


def bug_of(error: Exception) -> str:
    """Return a sentence about an error of raylr itself."""
    return f"raylr failed here, which is a bug: {type(error).__name__}: {error}."


def _footer(text: str) -> str:
    return f'<p class="dim">{html.escape(text)}</p>'


def main() -> None:
    """Print what `answer_of` returns for the folder that is named, as JSON."""
    os.nice(NICE)
    json.dump(asdict(answer_of(sys.argv[1])), sys.stdout, allow_nan=False)


if __name__ == "__main__":
    main()
