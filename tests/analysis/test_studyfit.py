import math

import numpy as np
import pyarrow as pa
import pytest
import synthetic

from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
from raylr.analysis.studyfit import SettingOptimum, check_prediction, fit_study
from raylr.store.runtable import evaluations_table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return synthetic.synthetic_table(tmp_path_factory.mktemp("study")).read()


@pytest.fixture(scope="module")
def fit(table):
    return fit_study(table, [synthetic.BUDGET // 2, synthetic.BUDGET])


def test_the_optima_are_found(fit):
    assert [(cell.size, cell.tokens) for cell in fit.optima] == [
        (size, budget) for size in synthetic.SIZES for budget in (synthetic.BUDGET // 2, synthetic.BUDGET)
    ]
    for cell in fit.optima:
        assert cell.lr_opt == pytest.approx(synthetic.lr_opt(cell.params, cell.tokens), rel=0.12)
        assert cell.lr_low < cell.lr_opt < cell.lr_high
        assert cell.lrs == 4


def test_the_law_is_found_and_its_interval_holds_the_target(fit):
    truth = synthetic.lr_opt(synthetic.TARGET, 2 * synthetic.BUDGET)
    prediction = fit.law.predict(synthetic.TARGET, 2 * synthetic.BUDGET)
    assert prediction.lr == pytest.approx(truth, rel=0.25)
    assert prediction.lr_low < truth < prediction.lr_high
    assert prediction.params_beyond == pytest.approx(2.5)


def test_the_check_says_where_the_targets_own_optimum_is(table):
    check = check_prediction(table, 3.3e-3, 2 * synthetic.BUDGET)
    assert check is not None
    truth = synthetic.lr_opt(synthetic.TARGET, 2 * synthetic.BUDGET)
    assert check.fit.lr == pytest.approx(truth, rel=0.25)  # three LRs, a factor three apart
    assert check.fit.lr_low < truth < check.fit.lr_high
    assert all(math.isfinite(check.loss_at(run)) for run in check.runs)


def test_no_check_runs_no_check(tmp_path):
    table = synthetic.synthetic_table(tmp_path, check=False).read()
    assert check_prediction(table, 3.3e-3, 2 * synthetic.BUDGET) is None


def test_a_table_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no search runs"):
        fit_study(evaluations_table(tmp_path).read(), [1000])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.5e-3, 2e-3, math.log(2) / 1.6449), (0.0, 1.5e-3, math.log(10)), (0.0, math.inf, math.log(10))],
)
def test_an_open_interval_says_little_in_the_law(low, high, expected):
    cell = SettingOptimum(
        size="S", setting=Setting(params=1, tokens=1), lr_opt=1e-3, lr_low=low, lr_high=high, loss=2.0, curvature=0.05,
        loss_stderr=0.1, lrs=3, measured_tokens=1, status=Status.OK, message="",
    )  # fmt: skip
    assert cell.log_stderr == pytest.approx(expected, rel=1e-3)


def with_current_lr(table, factor):
    lr, tokens = np.array(table["lr"]), np.array(table["tokens"])
    return table.append_column("current_lr", pa.array(lr * factor(tokens / synthetic.BUDGET)))


SCHEDULES = {
    "cosine": lambda x: 0.5 + 0.5 * np.cos(np.pi * np.minimum(x, 1)),
    "wsd": lambda x: np.clip((1.05 - x) / 0.25, 0.1, 1),
}


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_under_a_falling_lr_only_final_losses_count(tmp_path, schedule, reported):
    table = synthetic.synthetic_table(tmp_path, check=False).read()
    # Before their end the losses say the opposite of the final ones, as those of runs that are not yet decayed may.
    loss, early = np.array(table["loss"]).copy(), np.array(table["tokens"]) < synthetic.BUDGET
    loss[early] += 0.3 * np.log(np.array(table["lr"]))[early]
    table = table.set_column(table.schema.get_field_index("loss"), "loss", pa.array(loss))
    conditions = None if reported else Conditions(schedule=schedule)
    if reported:
        table = with_current_lr(table, SCHEDULES[schedule])
    fit = fit_study(table, [synthetic.BUDGET // 2, synthetic.BUDGET], conditions=conditions)
    assert len(fit.optima) == 2 * len(synthetic.SIZES)
    for optimum in fit.optima:
        if optimum.tokens < synthetic.BUDGET:
            assert optimum.status is Status.NOT_CONSTANT
            assert math.isnan(optimum.lr_opt)
            assert "not yet decayed" in optimum.message
        else:
            assert optimum.status is Status.OK
            truth = synthetic.lr_opt(optimum.params, synthetic.BUDGET)
            assert optimum.lr_opt == pytest.approx(truth, rel=0.12)
            assert optimum.lr_low < truth < optimum.lr_high
    assert fit.law.cells == len(synthetic.SIZES)
    truth = synthetic.lr_opt(synthetic.TARGET, synthetic.BUDGET)
    assert fit.law.lr(synthetic.TARGET, synthetic.BUDGET) == pytest.approx(truth, rel=0.25)
    for surface in fit.surfaces.values():
        assert surface.status is Status.NOT_CONSTANT or "stable phase" in surface.message


def test_repeated_reports_change_nothing(table, fit):
    doubled = pa.concat_tables([table.set_column(table.schema.get_field_index("loss"), "loss",
                                                 pa.array(np.array(table["loss"]) + 1)), table])  # fmt: skip
    again = fit_study(doubled, [synthetic.BUDGET // 2, synthetic.BUDGET])
    assert [optimum.lr_opt for optimum in again.optima] == [optimum.lr_opt for optimum in fit.optima]
