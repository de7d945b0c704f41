import math

import pytest
import synthetic

from raylr.analysis.cost import cost_of


def test_cost_is_what_the_runs_used_against_the_grid(tmp_path):
    table = synthetic.synthetic_table(tmp_path).read()
    cost = cost_of(table, sizes=list(synthetic.SIZES), grid=8, budget=synthetic.BUDGET)
    assert cost.search_tokens == 3 * 4 * synthetic.BUDGET
    assert cost.check_tokens == 3 * 2 * synthetic.BUDGET
    assert cost.token_share == pytest.approx(0.5)
    assert cost.flop_share == pytest.approx(0.5)


def test_a_size_without_runs_leaves_the_grids_flops_unknown(tmp_path):
    table = synthetic.synthetic_table(tmp_path).read()
    cost = cost_of(table, sizes=[*synthetic.SIZES, "XXL"], grid=8, budget=synthetic.BUDGET)
    assert math.isnan(cost.grid_flops)
    assert cost.grid_tokens == 4 * 8 * synthetic.BUDGET
