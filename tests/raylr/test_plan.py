import math

import pytest
from made_study import spec_of

from raylr.analysis.cost import cost_of
from raylr.errors import InputError
from raylr.plan import gpu_hours, plan_study
from raylr.quickstart import example_spec


def test_a_plan_agrees_with_what_the_study_then_spends(whole, texts):
    study, _ = whole
    plan = plan_study(study.spec, draws=8)
    spent = cost_of(study.evaluations.read(), sizes=["S", "M"], grid=7, budget=max(study.spec.token_budgets))
    assert spent.search_tokens == pytest.approx(plan.tokens.middle, rel=0.35)
    assert spent.grid_tokens == plan.grid_tokens
    assert spent.check_tokens == plan.check_tokens
    assert plan.tokens.low <= plan.tokens.middle <= plan.tokens.high <= plan.grid_tokens
    assert all(3 <= size.runs.middle <= 4 for size in plan.sizes)
    assert plan == plan_study(study.spec, draws=8)  # seeded


def test_more_runs_and_longer_ones_cost_more(texts):
    def tokens(**changes):
        return plan_study(spec_of(texts, target=None, **changes), draws=4).tokens.middle

    assert tokens(search={"max_trials": 3}) <= tokens(search={"max_trials": 8})
    assert tokens(budgets=["80k"]) > 1.5 * tokens(budgets=["40k"])
    surface = {"search": {"method": "surface", "budget": 2, "rungs": [0.25, 0.5, 1]}}
    assert tokens(**surface) <= 2 * (2 * 40_000 + 512)
    assert math.isnan(plan_study(spec_of(texts, target=None), draws=1).target_flops)


@pytest.mark.parametrize(("gpu", "mfu"), [("H1000", 0.4), ("H100", 0.0), ("H100", 1.5), ("H100", math.nan)])
def test_what_cannot_be_counted_with_is_refused(gpu, mfu):
    with pytest.raises(InputError):
        gpu_hours(1e18, gpu=gpu, mfu=mfu)


def test_a_transfer_study_is_planned_against_its_grid():
    spec = example_spec("transfer")
    plan = plan_study(spec, draws=1)
    assert [size.name for size in plan.sizes] == ["proxy"]
    assert 4 <= plan.runs.middle <= 9
    assert plan.grid_runs == 30
    assert plan.grid_tokens == 30 * max(spec.token_budgets) > 3 * plan.tokens.middle
    (target,) = spec.targets
    assert plan.check_tokens == 3 * spec.tokens_of(target)
    assert plan.target_flops == spec.tokens_of(target) * spec.target_model(target).flops_per_token(128)
