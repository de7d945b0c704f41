import warnings
from typing import Any

import pytest
import torch
from tiny_runs import MODEL

from raylr.trainables.models.interface import Losses
from raylr.trainables.models.qwen3_moe import Qwen3MoE, Router
from raylr.trainables.models.spec import ModelSpec
from raylr.trainables.training.groups import Multipliers, parameter_groups
from raylr.trainables.training.spec import TrainSpec

SPEC = MODEL.model_copy(update={"hidden_size": 64, "layers": 3, "head_dim": 16, "experts": 8, "top_k": 3})


def hugging_face(spec: ModelSpec) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

        config = Qwen3MoeConfig(
            vocab_size=spec.vocab_size,
            hidden_size=spec.hidden_size,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            num_key_value_heads=spec.kv_heads,
            head_dim=spec.head_dim,
            num_experts=spec.experts,
            num_experts_per_tok=spec.top_k,
            moe_intermediate_size=spec.expert_size,
            intermediate_size=spec.dense_size or 1,
            mlp_only_layers=list(range(spec.dense_layers)),
            norm_topk_prob=True,
            tie_word_embeddings=spec.tied_embeddings,
            rms_norm_eps=spec.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
            router_aux_loss_coef=spec.aux_loss,
            output_router_logits=True,
        )
        torch.manual_seed(1)
        return Qwen3MoeForCausalLM(config)


def batch(spec: ModelSpec, B: int = 3, T: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, spec.vocab_size, (B, T + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


def ours(spec: ModelSpec, **fields: Any) -> Qwen3MoE:
    model = Qwen3MoE(spec, **fields)
    model.initialise(0)
    return model


def losses(model: Qwen3MoE, *args: Any) -> Losses:
    out = model(*args)
    assert isinstance(out, Losses)
    return out


@pytest.mark.parametrize(
    "change",
    [{}, {"tied_embeddings": True}, {"dense_layers": 1, "dense_size": 48}, {"kv_heads": 4, "top_k": 8}],
    ids=str,
)
def test_logits_and_losses_are_hugging_faces(change: dict[str, Any]) -> None:
    spec = SPEC.model_copy(update=change)
    theirs, model = hugging_face(spec), ours(spec)
    ids, labels = batch(spec)
    for give, take in ((model, theirs), (theirs, model)):
        with torch.no_grad():
            for param in give.parameters():
                param.add_(torch.randn_like(param), alpha=0.05)
        missing = take.load_state_dict(give.state_dict())
        assert not missing.missing_keys
        assert not missing.unexpected_keys
        with torch.no_grad():
            want = theirs(input_ids=ids)
            assert (model(ids) - want.logits).abs().max() <= 1e-5 * max(1.0, want.logits.abs().max())
            got = losses(model, ids, labels)
        cross_entropy = torch.nn.functional.cross_entropy(want.logits.flatten(0, 1), labels.reshape(-1))
        assert torch.allclose(got.cross_entropy, cross_entropy, rtol=1e-5)
        assert torch.allclose(got.aux_loss, want.aux_loss, rtol=1e-5)
        assert torch.allclose(got.total, cross_entropy + spec.aux_loss * want.aux_loss, rtol=1e-5)


def test_training_balances_each_layer_or_all_together() -> None:
    for balance, name in (("loss", "aux_loss"), ("layer_loss", "layer_aux_loss"), ("bias", None)):
        spec = SPEC.model_copy(update={"balance": balance, "aux_loss": 0.5})
        with torch.no_grad():
            found = losses(ours(spec), *batch(spec))
        assert float(found.layer_aux_loss) > float(found.aux_loss) > 0
        added = 0.5 * float(getattr(found, name)) if name else 0.0
        assert float(found.total) == pytest.approx(float(found.cross_entropy) + added, rel=1e-6)


def test_gradients_are_hugging_faces() -> None:
    theirs, model = hugging_face(SPEC), ours(SPEC)
    model.load_state_dict(theirs.state_dict())
    ids, labels = batch(SPEC)
    losses(model, ids, labels).total.backward()
    out = theirs(input_ids=ids)
    cross_entropy = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.reshape(-1))
    (cross_entropy + SPEC.aux_loss * out.aux_loss).backward()
    want = dict(theirs.named_parameters())
    for name, param in model.named_parameters():
        assert torch.allclose(param.grad, want[name].grad, atol=2e-6, rtol=1e-3), name


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tied_embeddings": True},
        {"qk_norm": False},
        {"shared_expert_size": 24},
        {"dense_layers": 2, "dense_size": 40},
    ],
    ids=str,
)
def test_params_are_counted(change: dict[str, Any]) -> None:
    spec = SPEC.model_copy(update=change)
    assert sum(p.numel() for p in ours(spec).parameters()) == spec.params("total")


def test_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = ours(SPEC).state_dict()
    torch.manual_seed(6)
    second = ours(SPEC).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    matrix = first["model.layers.0.mlp.experts.gate_up_proj"]
    assert float(matrix.std()) == pytest.approx(SPEC.init_std, rel=0.05)
    assert bool((first["model.norm.weight"] == 1).all())


def test_activation_checkpointing_changes_nothing() -> None:
    ids, labels = batch(SPEC)
    gradients = []
    for model in (ours(SPEC), ours(SPEC, activation_checkpointing=True)):
        losses(model, ids, labels).total.backward()
        gradients.append([param.grad for param in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_documents_do_not_see_each_other() -> None:
    model = ours(SPEC)
    ids, _ = batch(SPEC, 1)
    documents = (torch.arange(64) >= 20).long()[None]
    changed = ids.clone()
    changed[0, :20] = (changed[0, :20] + 1) % SPEC.vocab_size
    with torch.no_grad():
        apart = (model(ids, None, documents) - model(changed, None, documents)).abs().amax(-1)[0]
        together = (model(ids) - model(changed)).abs().amax(-1)[0]
    assert float(apart[20:].max()) == 0.0
    assert float(together[20:].max()) > 0.0


def test_router_bias_moves_towards_balance() -> None:
    spec = SPEC.model_copy(update={"balance": "bias", "bias_rate": 0.001})
    model = ours(spec)
    ids, labels = batch(spec, 8)
    router = next(m for m in model.modules() if isinstance(m, Router))
    with torch.no_grad():
        router.weight.mul_(3)

    def spread() -> float:
        router.load.zero_()
        model(ids, labels)
        return float(router.load.float().std())

    before = spread()
    for _ in range(60):
        model(ids, labels)
        model.after_step()
    assert spread() < 0.5 * before
    assert router.steps.abs().max() <= 61
    with torch.no_grad():
        out = losses(model, ids, labels)
    assert float(out.total) == float(out.cross_entropy)


def test_one_adamw_step_is_plain_pytorchs() -> None:
    train = TrainSpec(seq_len=64, batch_tokens=64 * 3)
    model, plain = ours(SPEC), ours(SPEC)
    ids, labels = batch(SPEC)
    groups = parameter_groups(model, train, {role: Multipliers(lr=2.0) for role in ("experts_in", "experts_out")})
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=train.betas, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 * group["lr_multiplier"]
    for one in (model, plain):
        losses(one, ids, labels).total.backward()
    optimizer.step()
    for (name, new), old in zip(model.named_parameters(), plain.parameters(), strict=True):
        lr = 2e-2 if ".experts." in name else 1e-2
        decay = 0.0 if old.dim() == 1 else 0.1
        assert old.grad is not None
        want = old.detach() * (1 - lr * decay) - lr * old.grad / (old.grad.abs() + 1e-8)
        assert torch.allclose(new, want, atol=1e-6), name
