"""Nothing is reported to the makers of what raylr starts, unless the environment asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raylr.evaluation.process import _variables
from raylr.execution.session import ray_session
from raylr.telemetry import OFF, telemetry_off

PROGRAM = """
import sys
from raylr.telemetry import telemetry_off
telemetry_off()
from huggingface_hub import constants
from mlflow.telemetry.utils import is_telemetry_disabled
from ray._common.usage.usage_lib import usage_stats_enabled
print(constants.HF_HUB_DISABLE_TELEMETRY, is_telemetry_disabled(), usage_stats_enabled())
"""


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OFF, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that what the test sets is removed again
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("asked", "printed"), [({}, "True True False"), ({"RAY_USAGE_STATS_ENABLED": "1"}, "True True True")]
)
def test_the_libraries_themselves_take_it_so(asked: dict[str, str], printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[-2] == printed


def test_a_cluster_is_started_without_usage_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr("ray.init", lambda *args, **options: found.append(dict(os.environ)))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("raylr.execution.session.require_loopback", lambda: None)
    with ray_session():
        pass
    assert found[0].items() >= OFF.items()


def test_what_scores_checkpoints_reports_nothing_and_downloads_nothing(tmp_path: Path) -> None:
    variables = _variables(tmp_path, isolated=True)
    assert variables.items() >= OFF.items()
    assert variables["HF_HUB_OFFLINE"] == "1"


def test_what_the_environment_asks_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    telemetry_off()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
