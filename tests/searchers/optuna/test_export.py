import optuna
import pytest

from raylr.errors import InputError
from raylr.searchers.optuna import FinishedRun, export


def test_export(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    runs = [
        FinishedRun(
            setting=setting, lr=lr, tokens=[1e9, 2e9], loss=[3.0, 2.0 + lr], final=2.0 + lr if lr < 1e-2 else None,
            attributes={"decision": "complete"},
        )
        for setting in ("1M", "2M")
        for lr in (1e-3, 5e-3, 2e-2)
    ]  # fmt: skip
    for _ in range(2):  # again: replaced, not doubled
        assert export(runs, storage, name="demo") == ["demo/1M", "demo/2M"]
    study = optuna.load_study(study_name="demo/2M", storage=storage)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert study.best_params == {"lr": 1e-3}
    assert study.trials[0].intermediate_values == {10**9: 3.0, 2 * 10**9: 2.001}
    export(runs, storage, name="demo", lr_range=(5e-4, 1e-2))  # the search left its range
    lr = optuna.load_study(study_name="demo/1M", storage=storage).trials[0].distributions["lr"]
    assert (lr.low, lr.high) == (5e-4, 2e-2)
    with pytest.raises(InputError, match="no runs to export"):
        export([], storage, name="demo")
