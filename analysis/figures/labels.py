"""Names of sizes and runs in figures: a font that has their characters, or a number that the caption explains.

matplotlib's own font (DejaVu Sans) has no Chinese, Japanese or Korean. Where the machine has a font with the characters
that a name needs, the figure uses it as a fallback; otherwise the name is shown as `#1`, `#2`, …, and `replaced` states
for the caption which name each number stands for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

DEFAULT = "DejaVu Sans"
_PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei",
    "Arial Unicode MS",
)  # fmt: skip
"""Fonts for Chinese, Japanese and Korean of Linux, macOS and Windows; other fonts are tried after them."""
_UNUSABLE = ("emoji", "last resort", "color")
"""Parts of the names of fonts that matplotlib cannot draw, or that have a box for every character."""


def families(names: Iterable[str]) -> list[str]:
    """Return the font families to draw names with: matplotlib's own and, if it is needed, one more.

    Args:
        names: Everything that is to be drawn.

    Returns:
        Families for matplotlib's `font.family`, all of them installed.
    """
    missing = _missing(names, DEFAULT)
    found = _font_with(missing) if missing else None
    return [DEFAULT, found] if found else [DEFAULT]


def shown(names: Iterable[str]) -> dict[str, str]:
    """Return name → label for every name: the name itself, or a number where no font has its characters.

    A name that starts with an underscore gets a space in front: matplotlib leaves such labels out of legends.
    """
    wanted = list(dict.fromkeys(names))
    out: dict[str, str] = {}
    for name in wanted:
        needed = _missing([name], DEFAULT)
        drawable = not needed or _font_with(_missing(wanted, DEFAULT)) is not None
        number = sum(label.startswith("#") for label in out.values()) + 1
        out[name] = (f" {name}" if name.startswith("_") else name) if drawable else f"#{number}"
    return out


def replaced(names: Iterable[str]) -> dict[str, str]:
    """Return label → name for the names that figures show as a number."""
    return {label: name for name, label in shown(names).items() if label != name and label.startswith("#")}


@dataclass(frozen=True)
class Writer:
    """Turns texts into texts that can be drawn."""

    families: list[str]
    """Fonts to draw with."""
    numbers: dict[str, str]
    """Name → number, of names that cannot be drawn; the longest first."""

    def __call__(self, text: str) -> str:
        """Return a text whose characters all have a glyph.

        Args:
            text: Any text.
        """
        for name, number in self.numbers.items():
            text = text.replace(name, number)
        missing = _missing(text.splitlines(), self.families[0])
        for family in self.families[1:]:
            missing -= _characters(family)
        text = "".join("?" if ord(character) in missing and character != "\n" else character for character in text)
        return f" {text}" if text.startswith("_") else text  # matplotlib leaves such labels out of legends


def writer(names: Iterable[str], texts: Iterable[str]) -> Writer:
    """Return what makes the texts of a figure drawable on this machine.

    Args:
        names: Names that may occur in the texts.
        texts: Everything that is to be drawn.
    """
    wanted = list(names)
    numbers = {name: label for label, name in replaced(wanted).items()}
    longest_first = dict(sorted(numbers.items(), key=lambda one: -len(one[0])))
    found = families([*wanted, *(line for text in texts for line in text.splitlines())])
    return Writer(found if len(found) > 1 else families(wanted), longest_first)


def _missing(names: Iterable[str], family: str) -> frozenset[int]:
    have = _characters(family)
    return frozenset(ord(character) for name in names for character in name) - have


@lru_cache(maxsize=256)
def _characters(family: str) -> frozenset[int]:
    """Return the code points that a font family has; none if it is not installed."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    # Not by findfont, which logs a warning for every font without a regular weight.
    path = next((font.fname for font in font_manager.fontManager.ttflist if font.name == family), None)
    try:
        return frozenset(FT2Font(path).get_charmap()) if path else frozenset()
    except (RuntimeError, OSError):  # a file that FreeType cannot read, or that was removed
        return frozenset()


@lru_cache(maxsize=256)
def _font_with(points: frozenset[int]) -> str | None:
    """Return an installed font that has all these code points."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    usable = [name for name in installed if not any(part in name.lower() for part in _UNUSABLE)]
    ordered = [name for name in _PREFERRED if name in installed] + sorted(usable)
    return next((name for name in ordered if points <= _characters(name)), None)
