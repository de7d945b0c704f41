import json
import os
from pathlib import Path

import pytest

from raylr.errors import CheckpointError
from raylr.evaluation.model import model_hash, open_model


@pytest.fixture
def folder(hugging_face: Path) -> Path:
    return hugging_face


def test_a_hugging_face_folder_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    found = open_model(folder, tmp_path / "unused")
    assert found.folder == folder
    assert (found.run, found.tokens, found.phase, found.loss) == ("", None, None, None)
    assert found.checkpoint == str(folder.resolve())
    assert not (tmp_path / "unused").exists()
    assert open_model(os.path.relpath(folder), tmp_path).checkpoint == found.checkpoint


def test_an_export_says_what_it_is_of(folder: Path, tmp_path: Path) -> None:
    origin = {"checkpoint": "/study/checkpoints/r/step-1", "run": "r", "tokens": 100, "phase": "decay", "loss": 3.5}
    (folder / "raylr.json").write_text(json.dumps(origin))
    found = open_model(folder, tmp_path)
    assert (found.checkpoint, found.run, found.tokens, found.phase, found.loss) == tuple(origin.values())


@pytest.mark.parametrize(
    "origin",
    [{"tokens": "many"}, {"tokens": 10**400}, {"phase": 3}, {"loss": "NaN"}, {"loss": [1]}, {"run": None}],
)
def test_strange_facts_are_not_taken(folder: Path, tmp_path: Path, origin: dict[str, object]) -> None:
    (folder / "raylr.json").write_text(json.dumps(origin))
    found = open_model(folder, tmp_path)
    assert (found.run, found.tokens, found.phase, found.loss) == ("", None, None, None)


def test_a_damaged_origin_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "raylr.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"raylr\.json cannot be read"):
        open_model(folder, tmp_path)


def test_the_hash_is_of_what_answers_depend_on(folder: Path) -> None:
    before = model_hash(folder)
    (folder / "raylr.json").write_text("{}")
    (folder / "README.md").write_text("a model")
    assert model_hash(folder) == before
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{ }")
        assert model_hash(folder) != before
        before = model_hash(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", r"config\.json cannot be read"),
        ("config.json", "[]", "holds no JSON object"),
        ("config.json", "{}", "names no model_type"),
        ("model.safetensors", None, r"no weights \(\*\.safetensors\)"),
        ("tokenizer.json", None, r"no tokenizer \(tokenizer\.json\)"),
    ],
)
def test_half_a_hugging_face_folder_is_refused(folder: Path, name: str, text: str | None, message: str) -> None:
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_model(folder, folder)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model or checkpoint in .*nowhere"):
        open_model(tmp_path / "nowhere", tmp_path / "work")
    with pytest.raises(CheckpointError, match="holds no whole checkpoint"):
        open_model(tmp_path, tmp_path / "work")
