from pathlib import Path

import pytest

from raylr.cli.spec_reference import field_docs, main, reference
from raylr.evaluation.spec import ScoresSpec
from raylr.external.read import ReadSpec
from raylr.spec import (
    CommandSpec,
    CorpusSpec,
    ExternalSize,
    ExternalTrain,
    LRRange,
    ResourceSpec,
    SearchSpec,
    StudySpec,
    TargetSpec,
    TrainableSpec,
)
from raylr.trainables.models.spec import HFSpec, ModelSpec
from raylr.trainables.training.spec import TrainSpec

DOCS = Path(__file__).parents[3] / "docs" / "spec.md"


def test_the_reference_in_the_docs_is_the_codes() -> None:
    assert DOCS.read_text(encoding="utf-8") == reference(), "stale: run `make docs`"


def test_every_key_has_a_meaning() -> None:
    sections = (StudySpec, CorpusSpec, LRRange, SearchSpec, TargetSpec, ResourceSpec, ScoresSpec)
    external = (CommandSpec, ReadSpec, TrainableSpec, ExternalSize, ExternalTrain)
    for model in (*sections, *external, ModelSpec, HFSpec, TrainSpec):
        assert set(field_docs(model)) == set(model.model_fields), model


def test_types_defaults_and_meanings_are_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "spec.md")])
    main([])
    text = (tmp_path / "spec.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    assert "| `budgets` | list of integers | required | Token budgets at which the optimum is wanted" in text
    assert "| `method` | `quadratic`, `surface` | `quadratic` |" in text
    assert "| `rungs` | list of numbers | `[0.2, 0.35, 0.6, 1]` |" in text
    assert "| `target` | section | – |" in text
    assert "Raises" not in text
