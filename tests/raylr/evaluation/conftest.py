import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_questions import write_questions
from tiny_runs import BATCH, run

from raylr.trainables import Corpus

STEPS = 8


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    write_questions(folder, "mmlu", "anatomy", questions=6)
    write_questions(folder, "cmmlu", "genetics", questions=4)
    return folder


@pytest.fixture
def hugging_face(tmp_path: Path) -> Path:
    """A Hugging Face folder with the files that are looked for, and nothing in them."""
    path = tmp_path / "hugging_face"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture(scope="module")
def checkpoints(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a run of eight steps with a decay put into an evaluation queue after four and eight."""
    folder = tmp_path_factory.mktemp("made")
    points = [4 * BATCH, STEPS * BATCH]
    run(corpus.path, steps=STEPS, queue_dir=folder / "queue", queue_at=points, schedule="wsd", decay_fraction=0.4)
    yield folder / "queue"
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()
