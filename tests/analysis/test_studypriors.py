import math

import numpy as np
import pytest
import synthetic

from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.runs import RunEnd, Setting
from raylr.analysis.studyfit import fit_study
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.store.runtable import evaluations_table


def test_the_final_table_says_what_the_search_said_last(tmp_path):
    """One model of the loss over the LR: all runs go to the budget, and the table repeats the search's answers.

    The fourth and fifth size need two or three runs, since the search has a prior from the first three; without it
    their losses are an edge.
    """
    rng = np.random.default_rng(1)
    first = max(synthetic.SIZES.values())
    sizes = synthetic.SIZES | {f"{factor} times": factor * first for factor in (2, 3, 4)}
    settings = [Setting(name=n, params=p, tokens=synthetic.BUDGET) for n, p in sizes.items()]
    policy, rows = QuadraticPolicy(settings, lr_range=(5e-4, 5e-2)), []
    while (one := policy.ask()) is not None:
        size, params = one.setting.name, int(one.setting.params)
        for tokens in np.linspace(synthetic.BUDGET / 20, synthetic.BUDGET, 20).astype(int).tolist():
            loss = synthetic.loss(params, one.lr, tokens) + 1e-3 * rng.standard_normal()
            row = {"trial": f"{size}-{one.run.number}", "role": "search", "size": size, "params": params, "lr": one.lr}
            rows.append(row | {"tokens": tokens, "loss": loss, "flops": 1.0, "diverged": False, "seed": 0})
        policy.tell(one.run, RunEnd.COMPLETED, loss=loss)
    table = evaluations_table(tmp_path)
    table.append(rows)
    fit = fit_study(table.read(), [synthetic.BUDGET // 2, synthetic.BUDGET], lr_range=(5e-4, 5e-2))
    final = {one.size: one for one in fit.optima if one.tokens == synthetic.BUDGET}
    assert min(one.lrs for one in final.values()) < 4
    for size in sizes:
        said = policy.recommend(size)
        assert (final[size].lr_opt, final[size].status) == (said.lr, said.status)
        assert final[size].loss == pytest.approx(said.loss, rel=1e-12)
        assert final[size].message == said.reason


@pytest.mark.parametrize("ends", [0.5, math.nan])
def test_a_prior_alone_is_no_optimum(ends, tmp_path):
    """The fourth size has a prior from the others; its runs ended before the budget, or diverged."""
    rows = []
    for number, params in enumerate([*synthetic.SIZES.values(), 4 * max(synthetic.SIZES.values())]):
        last = number == len(synthetic.SIZES)
        for lr in np.geomspace(5e-4, 5e-2, 5):
            for tokens in np.linspace(synthetic.BUDGET / 4, synthetic.BUDGET, 4).astype(int).tolist():
                loss = synthetic.loss(params, lr, tokens)
                row = {"trial": f"{params}-{lr}", "role": "search", "size": str(params), "params": params, "lr": lr}
                lost = last and math.isnan(ends)
                if last and not lost and tokens > ends * synthetic.BUDGET:
                    continue
                row |= {"tokens": tokens, "loss": math.nan if lost else loss, "flops": 1.0, "diverged": lost, "seed": 0}
                rows.append(row)
    table = evaluations_table(tmp_path)
    table.append(rows)
    given = Conditions(schedule="cosine") if ends == 0.5 else None  # no loss is extrapolated
    fit = fit_study(table.read(), [synthetic.BUDGET], conditions=given)
    known = [math.isfinite(one.lr_opt) for one in fit.optima]
    assert known == [True] * len(synthetic.SIZES) + [False]
    assert fit.law is not None
