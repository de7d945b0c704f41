import pytest

from raylr.errors import SpecError
from raylr.trainables.models.roles import MODULE_OF, MODULES, check_factors, role_of, roles_of_key


@pytest.mark.parametrize(
    ("name", "dims", "role"),
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
def test_roles(name: str, dims: int, role: str) -> None:
    assert role_of(name, dims) == role


def test_modules_and_roles_do_not_clash() -> None:
    assert all(MODULE_OF[name] == name for name in MODULES if name in MODULE_OF)


def test_a_key_is_a_module_or_a_role_and_factors_are_checked() -> None:
    assert roles_of_key("experts", "x") == ("experts_in", "experts_out")
    assert roles_of_key("dense", "x") == ("dense",)
    check_factors("lr_multipliers", {"hidden": 0.0}, ["dense"])
    for table, message in (
        ({"expert": 1.0}, "lr_multipliers: 'expert' is not a module"),
        ({"router": 1.0}, "'router' matches no weight of this model, which has dense, hidden"),
        ({"dense": -1.0}, "dense=-1.0 must be a number of at least 0"),
        ({"dense": float("nan")}, "must be a number"),
    ):
        with pytest.raises(SpecError, match=message):
            check_factors("lr_multipliers", table, ["dense"])
