import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import BATCH, keeping, run

from raylr.errors import CheckpointError
from raylr.trainables import Corpus
from raylr.trainables.export.hf import export_checkpoint
from raylr.trainables.training.checkpoint import COMPLETE, STATE, _table, seal
from raylr.trainables.training.universal import convert
from raylr.trainables.training.unpickling import only_tensors


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self.mark), 0o777, True)


def poison(checkpoint: Path, mark: Path) -> None:
    """Add a program to every file of a checkpoint that DeepSpeed reads; its checksums are right."""
    files = list(checkpoint.rglob("*.pt"))
    assert files
    for path in files:
        state = torch.load(path, weights_only=False)
        torch.save(state | {"extra": Malicious(mark)}, path)
    state = json.loads((checkpoint / STATE).read_text())
    for name in (COMPLETE, STATE):
        (checkpoint / name).unlink()
    seal(checkpoint, state, _table(checkpoint))


def test_only_tensors_are_read(tmp_path: Path) -> None:
    file, mark = tmp_path / "file.pt", tmp_path / "mark"
    torch.save({"a": torch.ones(2), "extra": Malicious(mark)}, file)
    with (
        pytest.raises(CheckpointError, match=r"could run a program .*makedirs.*--trust-checkpoint"),
        only_tensors(file, deepspeed_classes=False),
    ):
        torch.load(file, weights_only=False)
    assert not mark.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    with only_tensors(file, trust=True):
        torch.load(file, weights_only=False)
    assert mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"zero_stage": 1}, {"zero_stage": 3}], ids=str)
def test_a_program_in_a_checkpoint_is_not_run(corpus: Corpus, tmp_path: Path, fields: dict[str, Any]) -> None:
    """Resuming, exporting and converting refuse it; the user may trust it."""
    kept, mark = tmp_path / "kept", tmp_path / "mark"
    run(corpus.path, steps=4, report=keeping(kept, 2 * BATCH), checkpoint_reports=True, **fields)
    poison(kept, mark)
    with pytest.raises(CheckpointError, match="could run a program"):
        run(corpus.path, steps=4, resume_from=kept, **fields)
    with pytest.raises(CheckpointError, match="could run a program"):
        export_checkpoint(kept, tmp_path / "hf")
    if fields == {"zero_stage": 1}:
        with pytest.raises(CheckpointError, match="could run a program"):
            convert(kept, tmp_path / "any")
    assert not mark.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    export_checkpoint(kept, tmp_path / "hf", trust_checkpoint=True)
    assert mark.exists()
