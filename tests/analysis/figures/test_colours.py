import numpy as np
import pytest

from raylr.analysis.figures.colours import ACCENT, GREY, INK, by_value, categories, ordered

DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
"""Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as a deuteranope sees it."""


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    x, y, z = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("page", ["light", "dark"])
def test_categories_are_told_apart_with_deuteranopia(page: str) -> None:
    seen = [lab(DEUTERANOPIA @ linear(getattr(colour, page))) for colour in categories(7)]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert np.linalg.norm(one - other) > 10  # 2.3 is just noticeable


@pytest.mark.parametrize("count", [2, 5, 12])
def test_ordered_colours_become_lighter(count: int) -> None:
    for page in ("light", "dark"):
        shades = [luminance(getattr(colour, page)) for colour in ordered(count)]
        assert shades == sorted(shades)
        assert len(set(shades)) == count
    assert by_value([1e-3, 1e-2, 1e-1])[1] == ordered(3)[1]
    assert by_value([2.0])[0] == ordered(1)[0]
    assert by_value([]) == []


def test_colours_stand_out_from_their_page() -> None:
    for colour in (*categories(7), *ordered(5), INK, GREY, ACCENT):
        assert (1.05) / (luminance(colour.light) + 0.05) > 1.7
        assert (luminance(colour.dark) + 0.05) / (luminance("#15181e") + 0.05) > 2.5
