import pytest
from tiny_runs import MODEL

from raylr.trainables.models.qwen3_moe import Qwen3MoE
from raylr.trainables.models.spec import TrainSpec
from raylr.trainables.training.groups import MODULE_OF, MODULES, parameter_groups, part_of

SPEC = MODEL.model_copy(update={"shared_expert_size": 8, "dense_layers": 1, "dense_size": 24})
TRAIN = TrainSpec(seq_len=8, batch_tokens=64)


def test_every_weight_is_in_one_group_of_its_module() -> None:
    model = Qwen3MoE(SPEC)
    groups = parameter_groups(model, TRAIN)
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {g["part"] for g in groups} == set(MODULE_OF)
    assert all(g["weight_decay"] == (0.0 if g["module"] == "norms" else 0.1) for g in groups)


@pytest.mark.parametrize(
    ("name", "dims", "part"),
    [
        ("model.embed_tokens.weight", 2, "embedding"),
        ("model.layers.0.self_attn.q_proj.weight", 2, "attention"),
        ("model.layers.0.self_attn.k_norm.weight", 1, "qk_norms"),
        ("model.layers.0.input_layernorm.weight", 1, "hidden_norms"),
        ("model.norm.weight", 1, "final_norm"),
        ("model.layers.0.mlp.gate.weight", 2, "router"),
        ("model.layers.0.mlp.router.gate.weight", 2, "router"),
        ("model.layers.0.mlp.experts.gate_up_proj", 3, "experts_in"),
        ("model.layers.0.mlp.experts.down_proj", 3, "experts_out"),
        ("model.layers.0.mlp.experts.w2", 3, "experts_out"),
        ("model.layers.0.mlp.experts.w3", 3, "experts_in"),
        ("model.layers.0.mlp.shared_expert.up_proj.weight", 2, "dense"),
        ("model.layers.0.mlp.gate_proj.weight", 2, "dense"),
        ("lm_head.weight", 2, "lm_head"),
    ],
)
def test_parts(name: str, dims: int, part: str) -> None:
    assert part_of(name, dims) == part


def test_a_part_goes_before_its_module() -> None:
    groups = parameter_groups(
        Qwen3MoE(SPEC),
        TRAIN,
        lr_multipliers={"experts": 2.0, "experts_out": 3.0},
        weight_decay_multipliers={"lm_head": 4.0},
        eps_multipliers={"norms": 5.0},
    )
    table = {g["part"]: g for g in groups}
    assert [table[p]["lr_multiplier"] for p in ("experts_in", "experts_out", "router")] == [2.0, 3.0, 1.0]
    assert table["lm_head"]["weight_decay"] == pytest.approx(0.4)
    assert table["final_norm"]["eps"] == pytest.approx(5e-8)


def test_bad_multipliers() -> None:
    model = Qwen3MoE(SPEC)
    with pytest.raises(ValueError, match="'expert' is no module; there are embedding, hidden"):
        parameter_groups(model, TRAIN, lr_multipliers={"expert": 2.0})
    with pytest.raises(ValueError, match="lm_head=-1"):
        parameter_groups(model, TRAIN, eps_multipliers={"lm_head": -1})
    bare = Qwen3MoE(SPEC.model_copy(update={"qk_norm": False}))
    with pytest.raises(ValueError, match="'qk_norms' matches no weight"):
        parameter_groups(bare, TRAIN, lr_multipliers={"qk_norms": 2.0})


def test_modules_and_parts_do_not_clash() -> None:
    assert all(MODULE_OF[name] == name for name in MODULES if name in MODULE_OF)
