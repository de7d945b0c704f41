import pytest
import torch

from raylr.trainables.engine import OUT_OF_MEMORY, bring_up, engine_config, running_engine
from raylr.trainables.model import Qwen3MoE
from raylr.trainables.spec import ModelSpec, TrainSpec

SPEC = ModelSpec(
    hidden_size=16,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=8,
    experts=2,
    top_k=1,
    expert_size=8,
    vocab_size=32,
)


def test_configuration() -> None:
    config = engine_config(TrainSpec(seq_len=8, batch_tokens=64, micro_batch=2, dtype="bf16"))
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 4
    assert config["zero_optimization"] == {"stage": 1}
    assert config["gradient_clipping"] == 1.0
    assert config["bf16"] == {"enabled": True}
    assert engine_config(TrainSpec(seq_len=8, batch_tokens=64))["gradient_clipping"] == 0.0


@pytest.mark.slow
def test_out_of_memory_says_what_to_change() -> None:
    bring_up(1)
    run = TrainSpec(seq_len=8, batch_tokens=64)
    with pytest.raises(MemoryError, match="lower micro_batch"), running_engine(Qwen3MoE(SPEC), run, {}):
        torch.empty(2**50, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), running_engine(Qwen3MoE(SPEC), run, {}):
        torch.mm(torch.zeros(2, 3), torch.zeros(2, 3))
    assert "zero_stage" in OUT_OF_MEMORY


@pytest.mark.slow
def test_the_first_bf16_step_moves_weights_by_the_lr() -> None:
    """DeepSpeed's phantom step (bf16 at stage 0) would make it 0.735 of that."""
    bring_up(1)
    model = Qwen3MoE(SPEC)
    model.initialise(0)
    run = TrainSpec(seq_len=8, batch_tokens=64, dtype="bf16", weight_decay=0.0, grad_clip=0.0)
    ids = torch.randint(0, 32, (8, 9), generator=torch.Generator().manual_seed(0))
    with running_engine(model, run, {}) as engine:
        for group in engine.optimizer.param_groups:
            group["lr"] = 2.0**-6 * group["lr_multiplier"]
        before = model.lm_head.weight.detach().float().clone()
        engine.backward(engine(ids[:, :-1], ids[:, 1:]).total)
        engine.step()
        moved = (model.lm_head.weight.detach().float() - before).abs()
    assert float(moved.median()) == pytest.approx(2.0**-6, rel=0.02)
