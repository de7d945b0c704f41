"""The fits of a made-up study, made once for all tests of figures."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import synthetic

from raylr.analysis.studyfit import Check, StudyFit, check_prediction, fit_study

BUDGETS = (synthetic.BUDGET // 2, synthetic.BUDGET)


@pytest.fixture(scope="session")
def study_table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    return synthetic.synthetic_table(tmp_path_factory.mktemp("study")).read()


@pytest.fixture(scope="session")
def study_fit(study_table: pa.Table) -> StudyFit:
    return fit_study(study_table, BUDGETS)


@pytest.fixture(scope="session")
def prediction(study_fit: StudyFit):
    return study_fit.law.predict(synthetic.TARGET, 2 * synthetic.BUDGET)


@pytest.fixture(scope="session")
def made_check(study_table: pa.Table, prediction) -> Check:
    check = check_prediction(study_table, prediction.lr, 2 * synthetic.BUDGET)
    assert check is not None
    return check


@pytest.fixture(scope="session")
def cut_fit(study_table: pa.Table) -> StudyFit:
    """The same study, in which one LR of size M diverged at once, one stopped at half, and S has one run."""
    half = synthetic.BUDGET / 2
    short = pc.and_(pc.equal(study_table["trial"], "search-M-0.002"), pc.greater(study_table["tokens"], half))
    few = pc.and_(pc.equal(study_table["size"], "S"), pc.not_equal(study_table["lr"], 4e-3))
    fit = fit_study(study_table.filter(pc.invert(pc.or_(short, few))), BUDGETS)
    runs = [
        dataclasses.replace(run, diverged=True, loss=run.loss * float("nan")) if run.trial == "search-M-0.016" else run
        for run in fit.runs
    ]
    return dataclasses.replace(fit, runs=runs)
