import pytest
from pydantic import ValidationError
from tiny_runs import MODEL

from raylr.errors import SpecError
from raylr.trainables.models.qwen3_moe import Qwen3MoE
from raylr.trainables.models.roles import MODULE_OF
from raylr.trainables.training.groups import multipliers_by_role, parameter_groups, roles_of
from raylr.trainables.training.spec import TrainSpec

SPEC = MODEL.model_copy(update={"shared_expert_size": 8, "dense_layers": 1, "dense_size": 24})
TRAIN = TrainSpec(seq_len=8, batch_tokens=64)


def test_every_weight_is_in_one_group_of_its_module() -> None:
    model = Qwen3MoE(SPEC)
    groups = parameter_groups(model, TRAIN)
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {g["role"] for g in groups} == set(MODULE_OF)
    assert all(g["weight_decay"] == (0.0 if g["module"] == "norms" else 0.1) for g in groups)


def test_a_role_goes_before_its_module() -> None:
    model = Qwen3MoE(SPEC)
    tables = {
        "lr_multipliers": {"experts": 2.0, "experts_out": 3.0},
        "weight_decay_multipliers": {"lm_head": 4.0},
        "eps_multipliers": {"norms": 5.0},
    }
    groups = parameter_groups(model, TRAIN, multipliers_by_role(roles_of(model), TRAIN.model_copy(update=tables)))
    table = {g["role"]: g for g in groups}
    assert [table[p]["lr_multiplier"] for p in ("experts_in", "experts_out", "router")] == [2.0, 3.0, 1.0]
    assert table["lm_head"]["weight_decay"] == pytest.approx(0.4)
    assert table["final_norm"]["eps"] == pytest.approx(5e-8)


def test_bad_multipliers() -> None:
    usual = {"seq_len": 8, "batch_tokens": 64}
    with pytest.raises(ValidationError, match="'expert' is not a module; there are embedding, hidden"):
        TrainSpec.model_validate(usual | {"lr_multipliers": {"expert": 2.0}})
    with pytest.raises(ValidationError, match="eps_multipliers: lm_head=-1"):
        TrainSpec.model_validate(usual | {"eps_multipliers": {"lm_head": -1}})
    rule = {"base": MODEL.model_dump(exclude_defaults=True)}
    with pytest.raises(ValidationError, match="lr_multipliers cannot be given together with parametrization"):
        TrainSpec.model_validate(usual | {"lr_multipliers": {"lm_head": 2.0}, "parametrization": rule})
    bare = Qwen3MoE(SPEC.model_copy(update={"qk_norm": False}))
    with pytest.raises(SpecError, match="'qk_norms' matches no weight"):
        multipliers_by_role(roles_of(bare), TRAIN.model_copy(update={"lr_multipliers": {"qk_norms": 2.0}}))
