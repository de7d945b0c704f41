import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.figures import placing
from raylr.analysis.figures.description import Axis, Map, Panel, Points
from raylr.analysis.figures.placing import edge_note, intervals, limits, placed, ticks, written


def panel(points: Points, **axes: object) -> Panel:
    return Panel(x=Axis("x"), y=Axis("y", **axes), marks=[points])  # type: ignore[arg-type]


@given(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20), st.sampled_from(["linear", "log"]))
def test_limits_hold_all_marks(values: list[float], scale: str) -> None:
    one = panel(Points(x=values, y=values), scale=scale)
    for (low, high), log in zip(limits(one), (False, scale == "log"), strict=True):
        assert low < high
        assert low <= min(values)
        assert max(values) <= high
        assert low > 0 or not log


@given(st.floats(1e-8, 1e8), st.floats(1.02, 1e9), st.sampled_from(["lr", "count", "number"]))
def test_logarithmic_axes_have_ticks_that_differ(low: float, ratio: float, unit: str) -> None:
    axis = Axis("x", scale="log", unit=unit)  # type: ignore[arg-type]
    found = ticks(axis, (low, low * ratio))
    assert found is not None
    inside = {value: text for value, text in found.items() if low <= value <= low * ratio}
    assert 1 <= len(inside) <= 10
    assert ratio < 1.2 or len(set(inside.values())) == len(inside)


def test_ticks_of_other_axes() -> None:
    assert ticks(Axis("x"), (0.0, 1.0)) is None
    assert ticks(Axis("x", ticks={1.0: "one"}), (0.0, 1.0)) == {1.0: "one"}
    found = ticks(Axis("x", scale="log", unit="lr"), (1e-4, 1e-2))
    assert found is not None
    assert {1e-4, 1e-3, 1e-2} <= {round(value, 9) for value in found}
    assert "1e-3" in found.values()


@pytest.mark.parametrize(
    ("value", "unit", "short", "text"),
    [(3e-4, "lr", True, "3e-4"), (3e-4, "lr", False, "3.00e-4"), (1.5e9, "count", True, "1.5B"),
     (0.0, "count", True, "0"),
     (0.25, "number", True, "0.25"), (2e-5, "number", True, "2e-5"), (3.14159, "number", False, "3.1416")],
)  # fmt: skip
def test_values_as_an_axis_writes_them(value: float, unit: str, short: bool, text: str) -> None:
    assert written(value, Axis("x", unit=unit), short=short) == text  # type: ignore[arg-type]


def test_what_lies_beyond_is_at_the_edge_with_its_value_in_the_hover() -> None:
    points = Points(x=[1, 2, 3, 4, math.nan], y=[0.5, 7.0, math.nan, -1.0, 0.5], hover="a run")
    one = panel(points, low=0.0, high=1.0)
    x, y = limits(one)
    found = {part.symbol: part for part in placed(points, one, x, y)}
    assert {symbol: part.x for symbol, part in found.items()} == {
        "circle": [1],
        "above": [2],
        "cross": [3],
        "below": [4],
    }
    assert all(0 <= value <= 1 for part in found.values() for value in part.y)
    assert found["above"].hover == ["a run\nx: 2\ny: 7"]
    assert found["cross"].hover == ["a run\nx: 3\ndiverged"]
    assert (
        edge_note([one])
        == " Crosses at the upper edge are runs that diverged; hollow triangles at an edge lie beyond it."
    )
    plain = panel(Points(x=[1], y=[0.5]))
    assert edge_note([plain]) == ""
    free = Points(x=[1, 2], y=[7.0, math.nan], edges=False)
    assert [(part.symbol, part.y) for part in placed(free, one, x, y)] == [("circle", [7.0])]
    assert edge_note([panel(free, low=0.0, high=1.0)]) == ""


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_intervals_end_in_caps_or_arrows(scale: str) -> None:
    low = [0.5, 0.0 if scale == "log" else -math.inf, math.nan, 0.5]
    points = Points(x=[1, 2, 3, 4], y=[1.0] * 4, low=low, high=[2.0, 2.0, math.inf, math.inf])
    one = panel(points, scale=scale)
    x, y = limits(one)
    found = intervals(points, one, x, y)
    assert found is not None
    assert found.caps == [(1, 0.5), (1, 2.0), (2, 2.0), (4, 0.5)]
    assert [place[0] for place in found.low_arrows] == [2, 3]
    assert [place[0] for place in found.high_arrows] == [3, 4]
    assert all(y[0] < place[1] < y[1] for place in (*found.low_arrows, *found.high_arrows))
    hovers = placed(points, one, x, y)[0].hover
    assert [text.splitlines()[-1] for text in hovers] == [
        "interval 0.5 to 2", "interval open, below 2", "interval open on both sides", "interval open, above 0.5"
    ]  # fmt: skip
    assert intervals(Points(x=[1], y=[1]), one, x, y) is None


def test_intervals_of_points_without_a_place_are_left_out() -> None:
    points = Points(x=[1.0, math.nan], y=[math.nan, 1.0], low=[0.0, 0.0], high=[1.0, 1.0])
    found = intervals(points, panel(points), (0, 2), (0, 2))
    assert found is not None
    assert not found.x
    assert not np.isfinite(found.y).any()


def test_axes_in_three_dimensions_and_colour_bars_have_few_ticks_within_what_is_drawn() -> None:
    lrs = np.geomspace(3e-4, 6e-2, 7)
    axes = Axis("LR", scale="log", unit="lr"), Axis("tokens", scale="log", unit="count")
    shown = Panel(x=axes[0], y=axes[1], z=Axis("loss"), marks=[Points(x=lrs, y=2e5 * lrs / lrs[0], z=lrs)])
    for name, low, high in (("x", 3e-4, 6e-2), ("y", 2e5, 4e7)):
        found = placing.space_ticks(shown, name)
        assert 2 <= len(found) <= 4
        assert all(low <= value <= high for value in found)
    values, texts = placing.bar_ticks(Map(x=[1.0, 2.0], y=[1.0], z=np.log10([[1e-3, 4e-2]]), log_lr=True))
    assert values == pytest.approx([math.log10(float(text)) for text in texts])
    assert len(values) >= 2
    assert -3 <= values[0] < values[-1] <= math.log10(4e-2)
