import contextlib
import math
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports.sources import read_runs

LRS = (3e-4, 1e-3, 3e-3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that MLflow's own client wrote: three finished runs, one that failed."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        warnings.simplefilter("ignore")
        tracking = pytest.importorskip("mlflow.tracking")
        folder = tmp_path_factory.mktemp("mlflow") / "mlruns"
        client = tracking.MlflowClient(tracking_uri=folder.as_uri())
        experiment = client.create_experiment("sweep")
        for lr in (*LRS, 1e-2):
            run = client.create_run(experiment).info.run_id
            for name, value in {"lr": lr, "params": 124_000_000, "batch_tokens": 500_000}.items():
                client.log_param(run, name, value)
            for step in range(1, 6):
                client.log_metric(run, "val_loss", 4 - 0.1 * step + 0.05 * math.log(lr / 1e-3) ** 2, step=step)
                client.log_metric(run, "lr", lr * min(1, step / 2), step=step)
            client.set_terminated(run, "FAILED" if lr == 1e-2 else "FINISHED")
        yield folder


def test_a_local_store(store: Path) -> None:
    runs = sorted(read_runs([store]).runs, key=lambda run: run.lr)
    assert [(run.lr, run.params, run.tokens, len(run.curve)) for run in runs] == [
        (lr, 124e6, 2.5e6, 5) for lr in (*LRS, 1e-2)
    ]
    assert [run.end for run in runs] == [RunEnd.COMPLETED] * 3 + [RunEnd.FAILED]
    assert runs[0].loss == pytest.approx(3.5 + 0.05 * math.log(0.3) ** 2)
    assert runs[0].curve[0].current_lr == pytest.approx(LRS[0] / 2)


def test_without_the_client_it_is_one_sentence(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(DataError, match=r"pip install 'raylr\[mlflow\]'"):
        read_runs([store])


def test_a_database_that_is_no_store_is_refused_and_not_changed(tmp_path: Path) -> None:
    """MLflow's client would make its tables in it, and wait for a damaged one."""
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("create table experiments (experiment_id text, name text)")
        base.commit()
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"mlflow\.db is no store of MLflow: it has no table 'alembic_version'"):
        read_runs([path])
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b"tableexperiments", b"tableexperi\x9cents"))  # a name that is no text
    with pytest.raises(DataError, match=r"mlflow\.db cannot be read as an SQLite file: .*utf-8"):
        read_runs([path])
    path.write_bytes(b"experiments" * 100)
    with pytest.raises(DataError, match=r"mlflow\.db cannot be read as an SQLite file: file is not a database"):
        read_runs([path])
