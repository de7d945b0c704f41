import pytest
from pydantic import ValidationError

from raylr.searches import search_policy, search_settings
from raylr.spec import StudySpec
from raylr.spec.modules import GROUPS, most_runs, present_roles, reaches_all, searched_axes
from raylr.spec.modules_runs import module_columns, placed_modules, values_of
from raylr.trainables.models.spec import HFSpec, ModelSpec

SPEC = {
    "model": {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "experts": 8, "top_k": 2},
    "sizes": {"S": {"hidden_size": 32, "expert_size": 32}},
    "train": {"seq_len": 128, "batch_tokens": 2048},
    "budgets": "200k",
    "lr": [1e-3, 2e-2],
}
DENSE = {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "dense_size": 64, "dense_layers": 2,
         "tied_embeddings": True}  # fmt: skip
COMMAND = {
    "command": ["train", "--lr", "{lr}", "--head", "{lr_multiplier_head}", "--rest", "{lr_multiplier_rest}"],
    "sizes": {"S": {"params": "1M"}},
    "train": {"batch_tokens": 2048, "schedule": "constant"},
    "budgets": "200k",
    "lr": [1e-3, 2e-2],
}


def spec_of(modules, **changes) -> StudySpec:
    return StudySpec.model_validate(SPEC | {"modules": modules} | changes)


def test_the_groups_are_the_papers_and_reach_every_tensor() -> None:
    spec = spec_of({})
    assert {axis.name: axis.keys for axis in searched_axes(spec)} == GROUPS
    assert reaches_all(spec)
    assert most_runs(spec) == 6 + 3 + 16 + 3
    assert most_runs(spec_of({"method": "joint", "seeds": 0})) == 6 + 10
    assert spec.grid_tokens == 5 * 7 * max(spec.token_budgets)


def test_groups_that_a_model_lacks_are_left_out_and_lists_are_groups() -> None:
    spec = spec_of({}, model=DENSE, sizes={"S": {"hidden_size": 32}})
    assert [axis.name for axis in searched_axes(spec)] == ["hidden", "embedding"]
    assert reaches_all(spec)
    spec = spec_of({"groups": ["hidden", "lm_head"]})
    assert [axis.keys for axis in searched_axes(spec)] == [("hidden",), ("lm_head",)]
    assert not reaches_all(spec)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups": ["hiden"]}, "'hiden' is not a module; there are embedding, hidden"),
        ({"groups": []}, "nothing would be searched"),
        ({"groups": {"a": ["hidden"], "b": ["attention"]}}, "attention is in a and in b"),
        ({"groups": ["dense"]}, "matches no weight of size 'S'"),
        ({"axes": {"foo": [1, 2]}}, "there is no axis 'foo'; there are init_std, weight_decay"),
        ({"axes": {"init_std": [0.1, 0.2]}}, "must hold its value in the spec, 0.02"),
        ({"axes": {"weight_decay_multipliers.norms": [0.1, 10]}}, "norms and biases have no weight decay"),
        ({"axes": {"lr_multipliers.hidden": [0.1, 10]}}, "'hidden' is given twice"),
        ({"axes": {"lr_multipliers.dense": [0.1, 10]}}, "dense is in hidden and in"),
        ({"lr": {"X": 1e-3}}, "modules.lr: S has no LR"),
        ({"lr": 1e-3, "study": "x"}, "leave one out"),
        ({"range": [2, 5]}, "range must hold 1"),
        ({"method": "joint", "groups": ["hidden"]}, "2 to 4 axes, got 1"),
        ([1], "it is a section"),
    ],
)
def test_what_cannot_be_is_one_clear_error(changes, words) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of(changes)


def test_what_a_study_of_modules_cannot_have_beside_it() -> None:
    target = {"model": {"hidden_size": 64, "expert_size": 64}, "tokens": "1M"}
    for changes, words in (
        ({"target": target}, "target cannot be given together with modules"),
        ({"budgets": ["200k", "400k"]}, "one budget"),
        ({"batches": [2048, 4096]}, "one batch"),
        ({"search": {"method": "surface"}}, "surface"),
    ):
        with pytest.raises(ValidationError, match=words):
            spec_of({}, **changes)


def test_a_run_is_placed_and_read_back_and_factors_of_the_spec_are_multiplied() -> None:
    axes = {"init_std": [0.005, 0.08], "weight_decay": [0.01, 1], "weight_decay_multipliers.embedding": [0.1, 10]}
    train = SPEC["train"] | {"lr_multipliers": {"experts": 2.0}}
    spec = spec_of({"axes": axes}, train=train)
    values = {axis.name: axis.start for axis in searched_axes(spec)}
    model = spec.models()["S"]
    assert placed_modules(spec, model, spec.train, values) == (model, spec.train)
    values |= {"router": 0.5, "init_std": 0.01, "weight_decay": 0.2, "weight_decay_multipliers.embedding": 3.0}
    placed, settings = placed_modules(spec, model, spec.train, values)
    assert placed.init_std == 0.01
    assert settings.weight_decay == 0.2
    assert settings.lr_multipliers == {"experts": 2.0, "router": 0.5, "experts_in": 1.0, "experts_out": 1.0}
    assert settings.weight_decay_multipliers == {"embedding": 3.0}
    measured = {
        "model": placed.model_dump(), "train": {"weight_decay": 0.2},
        "multipliers": {"lr": {"router": 0.5}, "weight_decay": {"embedding": 3.0}},
    }  # fmt: skip
    assert values_of(spec, model, measured) == pytest.approx(values)
    assert module_columns(spec, values)["lr_multiplier_router"] == 0.5


def test_another_trainer_gets_placeholders() -> None:
    spec = StudySpec.model_validate(COMMAND | {"modules": {"groups": ["head", "rest"]}})
    model, _ = placed_modules(spec, spec.external_models()["S"], spec.train, {"head": 0.5, "rest": 1.0})
    assert model.args == {"lr_multiplier_head": 0.5, "lr_multiplier_rest": 1.0}
    assert values_of(spec, model, {"args": model.args}) == {"head": 0.5, "rest": 1.0}
    with pytest.raises(ValidationError, match="lr_multiplier_tail"):
        StudySpec.model_validate(COMMAND | {"modules": {"groups": ["head", "tail"]}})


def test_the_roles_of_a_model() -> None:
    model = ModelSpec(**SPEC["model"], hidden_size=32, expert_size=32, vocab_size=300)
    assert present_roles(model) >= {"router", "experts_in", "lm_head", "qk_norms"}
    assert "lm_head" not in present_roles(model.model_copy(update={"tied_embeddings": True}))
    fields = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 400,
              "intermediate_size": 64, "num_attention_heads": 4}  # fmt: skip
    assert present_roles(HFSpec(hf=fields)) == {
        "embedding", "attention", "dense", "hidden_norms", "final_norm", "lm_head"
    }  # fmt: skip


def test_the_policy_of_the_spec() -> None:
    spec = spec_of({"lr": 3e-3, "held": "start", "max_trials": 2})
    policy = search_policy(spec, search_settings(spec), (), {"S": 3e-3})
    assert policy.lr("S") == 3e-3
    found = policy.ask()
    assert found.axes == dict.fromkeys(GROUPS, 1.0)
