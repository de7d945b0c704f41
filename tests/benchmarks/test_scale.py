"""The benchmark of the driver, at the size of a toy."""

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("cluster")

NUMBERS = {"driver_ms_per_trial_ratio", "restore_10k_seconds", "growth_exponent"}


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import scale
    import scale_study

    monkeypatch.setattr(scale_study, "PER_CELL", 3)
    monkeypatch.setattr(scale, "WARM", 15)
    monkeypatch.setattr(scale, "CASES", ("raylr", "optuna"))
    monkeypatch.setattr(scale, "start_ray", lambda: None)
    monkeypatch.setattr(
        scale, "in_process", lambda *case: scale.restored(*case) if len(case) == 4 else scale.one_case(*case)
    )
    yield scale
    for name in ("scale", "scale_study", "scale_actors"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_numbers_are_written(scale, monkeypatch, tmp_path):
    file = tmp_path / "numbers.json"
    arguments = ["--trials", "15", "--most", "30", "--beside", "8", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["scale.py", *arguments])
    scale.main()
    report = json.loads(file.read_text())
    assert report.keys() >= NUMBERS
    assert report["driver_ms_per_trial_ratio"] > 0
    assert all(row["restore_seconds"] > 0 for rows in report["cases"].values() for row in rows)
    assert isinstance(report["growth_exponent"], float)
    assert report["restore_10k_seconds"] is None  # thirty trials say nothing about ten thousand
    assert [row["trials"] for row in report["cases"]["raylr"]] == [15, 30]
    assert all(1 < row["most_side_by_side"] <= 8 for row in report["cases"]["raylr"])


def test_exponents_are_slopes_over_the_number_of_trials(scale):
    rows = [
        {"trials": n, "cpu_ms": 5.0, "wall_ms": 5.0, "suggest_ms": 0.1 * n, "restore_seconds": 1e-3 * n**1.5,
         "memory_mb": 2.0 * n, "table_mb": 0.0, "fits": 0.0}
        for n in (100, 10_000)
    ]  # fmt: skip
    found = scale.exponents(rows)
    assert {name: round(value, 9) for name, value in found.items()} == {
        "cpu_ms": 1, "wall_ms": 1, "suggest_ms": 2, "restore_seconds": 1.5, "memory_mb": 1,
    }  # fmt: skip
