import doctest
import math

from raylr.analysis.figures import description
from raylr.analysis.figures.description import Axis, Figure, Line, Panel, Points, is_open, legend, loss_limits


def test_the_example_of_a_figure_runs():
    assert doctest.testmod(description).failed == 0


def test_the_legend_has_one_entry_a_label_points_before_lines():
    marks = [
        Line(x=[1], y=[1], label="a"),
        Points(x=[1], y=[1], label="a"),
        Line(x=[1], y=[1]),
        Line(x=[1], y=[1], label="b"),
    ]
    panels = [Panel(x=Axis("x"), y=Axis("y"), marks=marks[:1]), Panel(x=Axis("x"), y=Axis("y"), marks=marks[1:])]
    found = legend(Figure(title="t", statement="1.", caption="c.", panels=panels))
    assert list(found.items()) == [("a", marks[1]), ("b", marks[3])]


def test_limits_of_losses_show_the_best_and_not_what_diverged():
    low, high = loss_limits([3.0, 3.1, 3.2, 80.0, math.nan])
    assert low < 3.0
    assert 3.2 < high < 40
    assert loss_limits([math.nan]) == (None, None)
    low, high = loss_limits([2.0])
    assert low < 2.0 < high


def test_open_ends():
    assert all(is_open(end, log=False) for end in (math.nan, math.inf, -math.inf))
    assert is_open(0.0, log=True)
    assert not is_open(0.0, log=False)
