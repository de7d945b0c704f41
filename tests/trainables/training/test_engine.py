import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import MODEL, run

from raylr.trainables.data.corpus import Corpus
from raylr.trainables.models.qwen3_moe import Qwen3MoE
from raylr.trainables.training.engine import (
    bring_up,
    engine_config,
    import_deepspeed,
    out_of_memory_advice,
    running_engine,
)
from raylr.trainables.training.spec import TrainSpec


def test_configuration() -> None:
    config = engine_config(TrainSpec(seq_len=8, batch_tokens=64, micro_batch=2, dtype="bf16"))
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 4
    assert config["zero_optimization"] == {"stage": 2}  # that of stage 1, with gradients summed in fp32
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}
    assert config["gradient_clipping"] == 1.0
    assert config["bf16"] == {"enabled": True}
    assert engine_config(TrainSpec(seq_len=8, batch_tokens=64))["gradient_clipping"] == 0.0


@pytest.mark.parametrize(
    "use_it_up",
    [
        lambda: torch.empty(2**50, dtype=torch.float64),
        lambda: np.empty(2**50),
        lambda: bytearray(2**62),
        lambda: raise_(torch.OutOfMemoryError("CUDA out of memory")),
    ],
    ids=["torch", "numpy", "python", "cuda"],
)
def test_out_of_memory_says_what_to_change(use_it_up: Callable[[], Any]) -> None:
    with pytest.raises(MemoryError, match="lower micro_batch"), out_of_memory_advice():
        use_it_up()


@pytest.mark.parametrize("before", [None, ModuleType("mlflow")], ids=["not imported", "imported before"])
@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
def test_deepspeed_is_imported_without_mlflow(
    before: ModuleType | None, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def imported(name: str) -> None:
        seen.append((name, sys.modules["mlflow"]))
        if fails:
            raise ImportError(name)

    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    if before is not None:
        monkeypatch.setitem(sys.modules, "mlflow", before)
    monkeypatch.setattr(importlib, "import_module", imported)
    if fails:
        with pytest.raises(ImportError, match="deepspeed"):
            import_deepspeed()
    else:
        import_deepspeed()
    assert seen == [("deepspeed", before)]  # None: importing it fails
    assert sys.modules.get("mlflow") is before


def raise_(error: Exception) -> None:
    raise error


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), out_of_memory_advice():
        torch.mm(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.slow
def test_a_model_too_large_for_memory(corpus: Corpus) -> None:
    with pytest.raises(MemoryError, match="a smaller model"):
        run(corpus.path, model=MODEL.model_copy(update={"vocab_size": 2**45}))


@pytest.mark.slow
def test_the_first_bf16_step_moves_weights_by_the_lr() -> None:
    """DeepSpeed's phantom step (bf16 at stage 0) would make it 0.735 of that."""
    bring_up(1)
    model = Qwen3MoE(MODEL)
    model.initialise(0)
    run = TrainSpec(seq_len=8, batch_tokens=64, dtype="bf16", weight_decay=0.0, grad_clip=0.0)
    ids = torch.randint(0, 32, (8, 9), generator=torch.Generator().manual_seed(0))
    with running_engine(model, run) as engine:
        for group in engine.optimizer.param_groups:
            group["lr"] = 2.0**-6 * group["lr_multiplier"]
        before = model.lm_head.weight.detach().float().clone()
        engine.backward(engine(ids[:, :-1], ids[:, 1:]).total)
        engine.step()
        moved = (model.lm_head.weight.detach().float() - before).abs()
    assert float(moved.median()) == pytest.approx(2.0**-6, rel=0.02)


@pytest.mark.slow
def test_bf16_sums_micro_batches_in_fp32() -> None:
    """In bf16 the norm would be 0.3 % off at 128 micro-batches."""
    bring_up(1)
    ids = torch.randint(0, 32, (128, 9), generator=torch.Generator().manual_seed(0))
    norms = []
    for micro in (128, 1):
        model = Qwen3MoE(MODEL)
        model.initialise(0)
        spec = TrainSpec(seq_len=8, batch_tokens=8 * 128, dtype="bf16", grad_clip=0.0, micro_batch=micro)
        with running_engine(model, spec) as engine:
            for first in range(0, 128, micro):
                engine.backward(engine(ids[first : first + micro, :-1], ids[first : first + micro, 1:]).total)
                engine.step()
            norms.append(float(engine.get_global_grad_norm()))
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
