import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import BATCH, MODEL, curve, run, train_spec
from torch import Tensor, nn

from raylr.errors import SpecError
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.models.build import build
from raylr.trainables.models.qwen3_moe import Qwen3MoE
from raylr.trainables.models.spec import HFSpec
from raylr.trainables.training.engine import bring_up, running_engine
from raylr.trainables.training.groups import MUON, parameter_groups, parametrized_groups
from raylr.trainables.training.optimizers import AdamW, MuonWithAdamW, make_optimizer, matrices, spectral_multiplier
from raylr.trainables.training.spec import TrainSpec

SPEC = MODEL.model_copy(update={"shared_expert_size": 8, "dense_layers": 1, "dense_size": 24})


def muon(**fields: Any) -> TrainSpec:
    return train_spec(optimizer={"name": "muon", **fields})


def network() -> Qwen3MoE:
    model = Qwen3MoE(SPEC)
    model.initialise(0)
    return model


def with_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in model.parameters():
        param.grad = torch.randn(param.shape, generator=generator)


def optimizer_of(model: nn.Module, train: TrainSpec) -> torch.optim.Optimizer:
    return make_optimizer(model, train, parameter_groups(model, train))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]


def orthogonal(update: Tensor) -> Tensor:
    """Newton-Schulz' five steps with the published coefficients, of one matrix, in fp32."""
    x = update.T if update.shape[0] > update.shape[1] else update
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if update.shape[0] > update.shape[1] else x


def test_adamw_is_that_of_torch_without_its_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for kind in (torch.optim.AdamW, AdamW):
        if kind is AdamW:
            monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # what imports it now fails
        weight = nn.Parameter(torch.linspace(-1, 1, 6))
        optimizer = kind([weight], lr=0.0, weight_decay=0.1, fused=True)
        for step in range(4):
            if step == 2:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = kind([weight], lr=0.0, fused=True)
                optimizer.load_state_dict(state)
            optimizer.param_groups[0]["lr"] = 0.01 * (step + 1)
            (weight.cos() * (step + 1)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert weight.grad is None
        found.append(weight.detach().clone())
    assert torch.equal(*found)


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    model = network()
    groups = parameter_groups(model, muon(adamw_lr_ratio=0.5))
    names = {param: name for name, param in model.named_parameters()}
    taken = {names[p] for g in groups if g["optimizer"] == MUON for p in g["params"]}
    assert all(name.endswith(("_proj", "_proj.weight")) for name in taken)
    left = set(names.values()) - taken
    assert not any("_proj" in name for name in left)
    assert "model.layers.1.mlp.shared_expert_gate.weight" in left
    assert {g["lr_multiplier"] for g in groups if g["optimizer"] == MUON} == {1.0}
    assert {g["lr_multiplier"] for g in groups if g["optimizer"] != MUON} == {0.5}
    assert sorted(map(id, names)) == sorted(id(p) for g in groups for p in g["params"])


def test_every_expert_and_each_half_of_gate_and_up_is_a_matrix() -> None:
    stack = torch.arange(2 * 6 * 3).reshape(2, 6, 3)
    found = list(matrices("mlp.experts.gate_up_proj", stack))
    assert [tuple(m.shape) for m in found] == [(3, 3)] * 4
    assert torch.equal(torch.cat(found).reshape(2, 6, 3), stack)
    assert all(m.data_ptr() >= stack.data_ptr() for m in found)  # views
    assert [tuple(m.shape) for m in matrices("mlp.experts.down_proj", stack)] == [(6, 3)] * 2
    assert [tuple(m.shape) for m in matrices("q_proj.weight", stack[0])] == [(6, 3)]


@pytest.mark.parametrize(
    ("adjust", "factor"),
    [
        ("match_rms_adamw", lambda out, inp: 0.2 * max(out, inp) ** 0.5),
        ("original", lambda out, inp: max(1, out / inp) ** 0.5),
        ("spectral", lambda out, inp: (out / inp) ** 0.5),
    ],
)
def test_two_steps_are_those_written_out_by_hand(adjust: str, factor: Any) -> None:
    model, lr, decay, momentum = network(), 3e-3, 0.1, 0.9
    train = muon(adjust_lr=adjust, momentum=momentum, adamw_lr_ratio=0.25)
    optimizer = optimizer_of(model, train)
    want = {name: param.detach().clone() for name, param in model.named_parameters()}
    means: dict[str, Tensor] = {}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in want.items()}
    taken = {p for g in optimizer.param_groups if g["optimizer"] == MUON for p in g["params"]}
    for step in (1, 2):
        with_gradients(model, step)
        set_lr(optimizer, lr)
        gradients = {name: param.grad.clone() for name, param in model.named_parameters() if param.grad is not None}
        optimizer.step()
        for name, param in model.named_parameters():
            gradient = gradients[name]
            if param not in taken:
                first, second = moments[name]
                first.lerp_(gradient, 0.1)
                second.lerp_(gradient.square(), 0.05)
                update = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
                want[name] *= 1 - lr / 4 * (decay if param.dim() > 1 else 0.0)
                want[name] -= lr / 4 * update
                continue
            mean = means.setdefault(name, torch.zeros_like(gradient))
            mean.lerp_(gradient, 1 - momentum)
            nesterov = gradient.lerp(mean, momentum)
            for weight, direction in zip(matrices(name, want[name]), matrices(name, nesterov), strict=True):
                weight *= 1 - lr * decay
                weight -= lr * factor(*weight.shape) * orthogonal(direction)
    for name, param in model.named_parameters():  # torch iterates in bf16: 1 % of an update
        scale = (want[name] - network().get_parameter(name).detach()).abs().max()
        torch.testing.assert_close(param.detach(), want[name], atol=float(0.03 * scale), rtol=0, msg=name)


def test_matrices_that_are_stored_transposed_are_turned() -> None:
    """GPT-2 stores [in, out]: the factor √(out/in) of its first MLP matrix, 32 → 128, is 2 and not 1/2."""
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_inner": 128, "vocab_size": 64, "tie_word_embeddings": False}
    model = build(HFSpec(hf={"model_type": "gpt2", **shape}), seed=0)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    optimizer = optimizer_of(model, muon(adjust_lr="spectral").model_copy(update={"weight_decay": 0.0}))
    with_gradients(model, 1)
    set_lr(optimizer, 1e-2)
    optimizer.step()
    for end, factor in (("c_fc.weight", 2.0), ("mlp.c_proj.weight", 0.5)):
        name = next(name for name in before if name.endswith(end))
        moved = (model.get_parameter(name).detach() - before[name]).float()
        norm = float(torch.linalg.matrix_norm(moved, 2))
        assert norm == pytest.approx(1e-2 * factor, rel=0.3), name  # singular values of its iteration: 0.7 to 1.2


def test_spectral_is_the_original_times_a_multiplier() -> None:
    for out, inp in ((8, 2), (2, 8), (3, 3)):
        assert spectral_multiplier(out, inp) * max(1, out / inp) ** 0.5 == pytest.approx((out / inp) ** 0.5)


def test_a_saved_state_goes_on_in_another_optimizer() -> None:
    model = network()
    optimizer = optimizer_of(model, muon(adjust_lr="spectral"))
    with_gradients(model, 1)
    set_lr(optimizer, 1e-2)
    optimizer.step()
    other = network()
    other.load_state_dict(model.state_dict())
    again = optimizer_of(other, muon(adjust_lr="spectral"))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [g["role"] for g in again.param_groups] == [g["role"] for g in optimizer.param_groups]
    for one, its in ((model, optimizer), (other, again)):
        with_gradients(one, 2)
        set_lr(its, 2e-2)
        its.step()
    for name, param in model.named_parameters():
        assert torch.equal(param, other.get_parameter(name)), name


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"ZeRO .* splits them"):
        train_spec(optimizer="muon", dtype="bf16")
    with pytest.raises(ValueError, match=r"ZeRO .* splits them"):
        train_spec(optimizer="muon", workers=2, zero_stage=1)
    assert train_spec(optimizer="muon", workers=2).stage == 0
    with pytest.raises(ValueError, match="momentum and ns_steps belong to the optimizer muon"):
        train_spec(optimizer={"name": "adamw", "momentum": 0.9, "ns_steps": 6})
    embedding = nn.ModuleDict({"embed_tokens": nn.Embedding(4, 4)})
    with pytest.raises(SpecError, match="this model has none"):
        optimizer_of(embedding, muon())
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(SpecError, match=r"needs torch 2\.9 or newer"):
        optimizer_of(network(), muon())


def test_a_parametrization_for_muon_reaches_its_groups() -> None:
    """The factors of `transfer`, tensor by tensor, and AdamW's own LR ratio."""
    base = SPEC.model_copy(update={"hidden_size": 16, "expert_size": 8}).model_dump(exclude_defaults=True)
    rule = {"base": base, "choose": {"optimizer": "muon_spectral"}}
    train = train_spec(optimizer={"name": "muon", "adjust_lr": "spectral", "adamw_lr_ratio": 0.5}, parametrization=rule)
    assert train.parametrization is not None
    model = network()
    factors = {one.name: one for one in train.parametrization.transfer(SPEC).tensors}
    groups = parametrized_groups(model, train)
    names = {param: name for name, param in model.named_parameters()}
    for group in groups:
        for param in group["params"]:
            one = factors[names[param]]
            assert (group["optimizer"] == MUON) == one.by_muon
            ratio = 1.0 if one.by_muon else 0.5
            assert group["lr_multiplier"] == pytest.approx(ratio * one.factors["lr"]), one.name
    optimizer = make_optimizer(model, train, groups)
    assert isinstance(optimizer, MuonWithAdamW)
    with pytest.raises(
        ValueError, match=r"the rule is for optimizer='adamw', .* take choose: \{optimizer: muon_spectral\}"
    ):
        train_spec(optimizer={"name": "muon", "adjust_lr": "spectral"}, parametrization={"base": base})
    with pytest.raises(ValueError, match=r"is adamw: take choose: \{optimizer: adamw\}"):
        train_spec(parametrization=rule)


@pytest.mark.slow
def test_a_run_learns_and_resumes_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"optimizer": {"name": "muon"}, "checkpoint_seconds": 0, "lr": 1e-2}
    whole = run(corpus.path, run_dir=tmp_path / "whole", **fields)
    assert whole[-1]["loss"] < whole[0]["loss"] - 0.1
    run(corpus.path, run_dir=tmp_path / "half", stop_at=6 * BATCH, **fields)
    assert curve(run(corpus.path, run_dir=tmp_path / "half", **fields)) == curve(whole)
    adamw = run(corpus.path, lr=1e-2)
    assert adamw[-1]["loss"] != whole[-1]["loss"]
    with pytest.raises(ValueError, match="optimizer"):
        run(corpus.path, run_dir=tmp_path / "whole", lr=1e-2)
    bring_up(1)
    with running_engine(network(), muon()) as engine:
        assert isinstance(engine.optimizer, MuonWithAdamW)
