import math

import pytest
import synthetic

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
    assert check.quadratic.lr_opt == pytest.approx(synthetic.lr_opt(synthetic.TARGET, 2 * synthetic.BUDGET), rel=0.1)
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
