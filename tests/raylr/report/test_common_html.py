import math

from raylr.analysis.cost import Cost
from raylr.report.common_html import cost_html, failures_html
from raylr.report.failures import Failure


def cost(**values):
    return Cost(**{"search_tokens": 500, "search_flops": 3e9, "check_tokens": 0, "check_flops": 0.0,
                   "grid_tokens": 2000, "grid_flops": 6e9} | values)  # fmt: skip


def test_the_cost_is_compared_with_the_grid():
    found = "".join(cost_html(cost(), search="search", grid="full grid"))
    assert "The search trained 500 tokens, 25% of the full grid" in found
    assert "25% of tokens, 50% of FLOPs" in found
    assert "check" not in found


def test_runs_at_the_target_have_a_row():
    assert "runs there" in "".join(
        cost_html(cost(check_tokens=1), search="search", grid="full grid", check="runs there")
    )


def test_flops_of_a_grid_that_are_not_known_are_left_out():
    found = "".join(cost_html(cost(grid_flops=math.nan), search="search", grid="full grid"))
    assert "–" in found
    assert "nan" not in found


def test_failures_are_escaped_and_counted():
    found = "".join(failures_html([Failure(sentence="a < b", output="<x>"), Failure(sentence="c", output="")]))
    assert "have not ended since: 2." in found
    assert "a &lt; b" in found
    assert found.count("<pre>") == 1
    assert "".join(failures_html([])) == ""
