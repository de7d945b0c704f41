import numpy as np
import pytest
import synthetic

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
