import json

import pydantic
import pytest
from tiny_runs import BATCH, MODEL, curve, run, train_spec

from raylr.errors import SpecError
from raylr.trainables.models.parametrization import parametrization
from raylr.trainables.training.checkpoint import STATE
from raylr.trainables.training.parametrized import ParametrizationSpec

BASE = MODEL.model_copy(update={"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 1, "expert_size": 8})


def given(**fields):
    return {"base": BASE.model_dump(exclude_defaults=True)} | fields


@pytest.fixture(scope="module")
def folder(corpus):
    yield corpus.path
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


def test_a_run_has_the_rules_groups_and_goes_on_from_its_checkpoint(folder, tmp_path):
    seen = []

    def probe(event):
        seen.append([(g["lr"], g["weight_decay"], g["eps"], g["role"]) for g in event.engine.optimizer.param_groups])

    rule = given(token_ratio=4.0)
    whole = run(folder, run_dir=tmp_path / "whole", parametrization=rule, probes=[probe])
    spec = ParametrizationSpec.model_validate(rule)
    found = spec.transfer(MODEL)
    expected = {one.role: one.factors for one in found.tensors}
    for lr, decay, eps, roles in seen[-1]:
        for role in roles.split():
            assert lr == pytest.approx(3e-3 * expected[role]["lr"])
            assert eps == pytest.approx(1e-8 * expected[role]["eps"])
            assert decay == pytest.approx(0 if "norm" in role else 0.1 * expected[role]["weight_decay"])
    assert {role for *_, roles in seen[-1] for role in roles.split()} == set(expected)
    state = json.loads(next((tmp_path / "whole").rglob(STATE)).read_text())
    assert state["run"]["model"]["residual_multiplier"] == 0.5  # exports need it: the base has half the layers
    half = BATCH * 6
    run(folder, run_dir=tmp_path / "parts", parametrization=rule, stop_at=half)
    assert curve(run(folder, run_dir=tmp_path / "parts", parametrization=rule)) == curve(whole)


def test_a_rule_without_factors_trains_as_none_and_another_one_does_not(folder):
    plain = curve(run(folder))
    assert curve(run(folder, parametrization=given(rule="standard"))) == plain
    assert curve(run(folder, parametrization=given())) != plain


def test_what_cannot_be_is_refused(folder):
    for fields, words in (
        ({"rule": "completed"}, "no parametrization"),
        ({"choose": {"router": "plane"}}, "the options are"),
        ({"alpha": 0.2}, "alpha"),
        ({"base": {"hidden_size": 3}}, "layers"),
        ({"token_ratio": 0}, "token_ratio"),
        ({"rule": {"terms": [{"quantity": "lr", "roles": ["hiden"], "width": -1, "source": "own"}]}}, "hiden"),
    ):
        with pytest.raises(pydantic.ValidationError, match=words):
            train_spec(parametrization=given(**fields))
    with pytest.raises(pydantic.ValidationError, match="expert_parallel"):
        train_spec(parametrization=given(), workers=2, expert_parallel=2)
    with pytest.raises(pydantic.ValidationError, match="together with parametrization"):
        train_spec(parametrization=given(), lr_multipliers={"router": 2.0})
    with pytest.raises(SpecError, match="no place"):  # the head's multiplier in its published form
        run(folder, parametrization=given(rule="completep"))
    tied = BASE.model_copy(update={"tied_embeddings": True}).model_dump(exclude_defaults=True)
    with pytest.raises(SpecError, match="untie"):
        run(folder, parametrization=given(base=tied))


def test_an_own_table_is_one_more_rule():
    rows = [{"quantity": "lr", "roles": ["lm_head"], "width": -2, "source": "own"}]
    spec = ParametrizationSpec.model_validate(given(rule={"name": "mine", "terms": rows}))
    assert spec.table().name == "mine"
    factors = {one.role: one.factors["lr"] for one in spec.transfer(MODEL).tensors}
    assert factors["lm_head"] == 0.25
    assert factors["experts_in"] == 1.0
    assert ParametrizationSpec.model_validate(given()).table() == parametrization("completed_p")
    assert spec.multiplied(MODEL) == MODEL
