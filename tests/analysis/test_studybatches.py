import math

import numpy as np
import pytest
import synthetic

from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.studyfit import fit_study
from raylr.errors import InputError
from raylr.store.runtable import evaluations_table

DELTA = 0.4
BATCHES = (1024, 8192)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Each size at two batches; the optimum grows as B^0.4 and the larger batch ends 0.1 nats higher."""
    folder = tmp_path_factory.mktemp("batches")
    rows = []
    for size in ("S", "L"):
        params = synthetic.SIZES[size]
        for batch in BATCHES:
            factor = (batch / BATCHES[0]) ** DELTA
            for lr in (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2):
                for tokens in np.linspace(1e5, 1e6, 10).astype(int).tolist():
                    loss = synthetic.loss(params, lr / factor, tokens) + 0.1 * (batch > BATCHES[0])
                    row = {"trial": f"{size}-{batch}-{lr}", "role": "search", "size": size, "params": params, "lr": lr}
                    rows.append(row | {"batch": batch, "tokens": tokens, "loss": loss, "diverged": False})
    made = evaluations_table(folder)
    made.append(rows)
    return made.read()


BUDGETS = [synthetic.BUDGET // 2, synthetic.BUDGET]


@pytest.fixture(scope="module")
def fit(table):
    return fit_study(table, BUDGETS)


def test_every_size_and_batch_has_an_optimum_at_each_budget(fit):
    assert len(fit.optima) == 2 * 2 * 2
    assert {(one.batch, one.tokens) for one in fit.optima} == {(b, d) for b in BATCHES for d in BUDGETS}
    for one in fit.optima:
        truth = synthetic.lr_opt(one.params, one.tokens) * (one.batch / BATCHES[0]) ** DELTA
        assert one.lr_opt == pytest.approx(truth, rel=0.2)


def test_the_law_has_the_batch_in_it(fit):
    assert fit.law.ok
    low, high = fit.law.interval(0.9)["delta"]
    assert low < DELTA < high
    assert fit.law.delta == pytest.approx(DELTA, abs=0.1)
    assert fit.law.batch_note == ""
    found = fit.law.predict(synthetic.TARGET, synthetic.BUDGET, batch=16_384)
    truth = synthetic.lr_opt(synthetic.TARGET, synthetic.BUDGET) * 16**DELTA
    assert found.lr_low < truth < found.lr_high
    assert found.batch_beyond == pytest.approx(2)
    with pytest.raises(InputError, match="give the target's batch"):
        fit.law.predict(synthetic.TARGET, synthetic.BUDGET)


def test_the_loss_law_has_the_batch_in_it(fit):
    assert fit.loss_law.batch_range == BATCHES
    small, large = (fit.loss_law.predict(4e5, synthetic.BUDGET, batch=batch) for batch in BATCHES)
    assert large.loss - small.loss == pytest.approx(0.1, abs=0.04)
    for one in fit.optima:
        found = fit.loss_law.predict(one.params, one.tokens, batch=one.batch)
        assert found.low < one.loss < found.high


def test_an_exponent_that_was_given_is_the_laws(table):
    law = fit_study(table, BUDGETS[1:], batch_exponent=0.3).law
    assert law.delta == 0.3
    assert law.interval(0.9)["delta"] == (0.3, 0.3)
    assert law.batch_note == ""


def test_with_one_batch_a_law_has_it_only_where_asked_for(table):
    mask = np.array(table["batch"]) == BATCHES[0]
    one = table.filter(mask)
    assert fit_study(one, BUDGETS).law.batch_unit is None
    law = fit_study(one, BUDGETS, batch_exponent="prior").law
    assert law.delta == pytest.approx(0.5)
    assert "cannot tell the exponent of the batch from the noise" in law.batch_note
    wide, narrow = (law.predict(4e5, synthetic.BUDGET, batch=b) for b in (8192, 1024))
    assert law.batch_note in wide.message
    assert law.batch_note not in narrow.message
    assert math.log(wide.lr_high / wide.lr_low) > 1.5 * math.log(narrow.lr_high / narrow.lr_low)


def test_batches_of_some_runs_only_are_refused(table):
    part = table.set_column(
        table.schema.get_field_index("batch"),
        "batch",
        [[None if size == "S" else batch for size, batch in zip(table["size"].to_pylist(), table["batch"].to_pylist(),
                                                                strict=True)]],
    )  # fmt: skip
    with pytest.raises(InputError, match="the batch of some runs and not of others"):
        fit_study(part, BUDGETS)
    # Where the conditions state one batch, a run without its own has that one.
    assert fit_study(part, BUDGETS, conditions=Conditions(batch_tokens=1024.0)).law.batch_unit is not None
