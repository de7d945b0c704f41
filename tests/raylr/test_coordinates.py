import json

import pytest
from made_pages import is_self_contained

from raylr.analysis.coordinates import Expected, check_coordinates
from raylr.coordinates import StoredResults, write_results
from raylr.errors import DamagedError, StudyError

ROWS = [{"observable": "logits", "layer": "", "step": step, "std": 0.5 + step} for step in (0, 1)]


def test_runs_are_found_again_whole(tmp_path):
    results = StoredResults(tmp_path)
    assert len(results) == 0
    assert not list(tmp_path.iterdir())  # reading makes nothing
    results.put("a", ROWS)
    results.put("b", [{**ROWS[0], "std": float("nan")}])
    again = StoredResults(tmp_path)
    assert len(again) == 2
    assert again.get("a") == ROWS
    assert again.get("b")[0]["std"] != again.get("b")[0]["std"]  # NaN: it diverged, and that is known
    assert again.get("c") is None


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "spec.yaml").write_text("name: a study")
    with pytest.raises(StudyError, match="is not empty and holds no coordinate check; choose another folder"):
        StoredResults(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_a_damaged_file_is_named(tmp_path):
    StoredResults(tmp_path).put("a", ROWS)
    (file,) = (tmp_path / "coordinates").glob("*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(DamagedError, match=file.name):
        StoredResults(tmp_path)


def test_results_are_json_and_figures(tmp_path):
    rows = [{"scale": s, "seed": 0, **row} for s in (1.0, 2.0, 4.0) for row in ROWS]
    check = check_coordinates("own", "width", rows, lambda *_: Expected(low=0, high=0, why="flat"), (0, 1))
    paths = write_results(tmp_path / "new", [check], {"lr": 1e-3})
    names = [f"{name}_width.{kind}" for name in ("changes", "raw", "slopes") for kind in ("png", "svg")]
    assert [path.name for path in paths] == ["check.json", "coord-check.html", *names]
    is_self_contained(paths[1], figures={"changes-width", "raw-width", "slopes-width"})
    found = json.loads(paths[0].read_text())
    assert found["checks"][0]["rows"][0]["expected"] == {"low": 0, "high": 0, "why": "flat"}
    assert "weight decay" in found["cannot_see"]
    assert all(path.stat().st_size > 1000 for path in paths[1:])
