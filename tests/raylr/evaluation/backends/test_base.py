import json
from pathlib import Path

import pytest
from made_backend import NAME, MadeBackend

from raylr.errors import InputError
from raylr.evaluation.backends import BACKENDS
from raylr.evaluation.backends.base import context_notes, open_backend
from raylr.evaluation.backends.lm_eval import LmEval
from raylr.evaluation.spec import ScoresSpec


def test_backends_by_name_and_by_path() -> None:
    assert set(BACKENDS) == {"opencompass", "lm-eval"}
    assert isinstance(open_backend(ScoresSpec(data=Path("questions"))), LmEval)
    assert isinstance(open_backend(ScoresSpec(data=Path("questions"), backend=NAME)), MadeBackend)


@pytest.mark.parametrize("name", ["no_such_module:Backend", "made_backend:NoSuchClass", ":", "json:"])
def test_a_backend_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"the backend '{name}' cannot be imported"):
        open_backend(ScoresSpec(data=Path("questions"), backend=name))


def test_prompts_beyond_what_a_model_was_made_for_give_a_note(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    assert context_notes(tmp_path, 4096) == []
    assert context_notes(tmp_path, 4097) == ["the longest prompt has 4097 tokens, the model was made for 4096"]
    (tmp_path / "raylr.json").write_text(json.dumps({"seq_len": 128}))
    assert context_notes(tmp_path, 200) == ["the longest prompt has 200 tokens, the model was made for 128"]
    (tmp_path / "raylr.json").write_text(json.dumps({"seq_len": None}))
    assert context_notes(tmp_path, 200) == []
