import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from raylr.cli.init import Kind, init
from raylr.cli.spec_template import BASES, LEFT_OUT, spec_template
from raylr.errors import InputError, StorageError
from raylr.finished import load_runs
from raylr.quickstart import quickstart_spec
from raylr.spec import CommandSpec, ExternalTrain, SearchSpec, StudySpec, load_spec
from raylr.trainables.training.spec import TrainSpec


def test_init_writes_a_spec_that_loads_and_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    init(file)
    assert load_spec(file) == quickstart_spec()
    with pytest.raises(InputError, match="exists already"):
        init(file)
    with pytest.raises(StorageError, match=str(tmp_path / "none" / "study.yaml")):
        init(tmp_path / "none" / "study.yaml")


@pytest.mark.parametrize("kind", BASES)
def test_every_key_stands_there_and_each_may_be_set(tmp_path: Path, kind: str) -> None:
    file, text = tmp_path / "study.yaml", spec_template(kind)
    file.write_text(text)
    assert load_spec(file, check_files=False).name == "study"
    key = r"(?m)^((?:  )?)# (?=(?:  )?\w+:(?: |$))"
    assert len(re.findall(key, text)) > 20
    file.write_text(re.sub(key, r"\1", text))
    assert load_spec(file, check_files=False).name == "study"
    everything = yaml.safe_load(file.read_text())
    assert set(everything) == set(StudySpec.model_fields) - set(LEFT_OUT[kind])
    models = {
        "command": CommandSpec,
        "search": SearchSpec,
        "train": ExternalTrain if "command" in everything else TrainSpec,
    }
    for name, model in models.items():
        assert name not in everything or set(everything[name]) == set(model.model_fields)
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_init_writes_can_be_read(tmp_path: Path, kind: Kind) -> None:
    file = tmp_path / ("runs.csv" if kind == "import" else "study.yaml")
    init(file, kind=kind)
    if kind == "import":
        table = load_runs(file)
        assert table["lr"].to_pylist() == [1e-3, 3e-3, 1e-2]
        assert set(table["optimizer"].to_pylist()) == {"adamw"}
    else:
        assert load_spec(file).token_budgets
