import pydantic
import pytest
import yaml
from made_transfer import SPEC, spec_of

from raylr.errors import SpecError
from raylr.spec import StudySpec, dump_spec, load_spec, summary
from raylr.spec.transfer import parametrization_of, transfer_warnings
from raylr.spec.transfer_runs import axes_of, placed

TARGET = {"name": "wide", "model": {"hidden_size": 64, "heads": 8, "kv_heads": 4, "expert_size": 64}, "tokens": "80k"}
RUN = ["{python}", "train.py", "--lr", "{lr}", "--std", "{init_std}", "--width-mult", "{width_ratio}", "--steps",
       "{steps}", "--token-mult", "{token_ratio}"]  # fmt: skip
EXTERNAL = {
    "command": RUN,
    "sizes": {"proxy": {"params": "1M"}},
    "train": {"batch_tokens": 512, "schedule": "constant"},
    "budgets": "40k",
    "lr": [1e-3, 1e-1],
    "transfer": {
        "init_std": [0.004, 0.1],
        "targets": [{"name": "wide", "model": {"params": "16M"}, "tokens": "160k", "ratios": {"width": 4, "depth": 1}}],
    },
}


def with_target(texts, **changes):
    return spec_of(texts, transfer={"targets": [TARGET | changes]})


def test_defaults_and_what_follows_from_the_models(texts, tmp_path):
    spec = spec_of(texts)
    assert spec.search.max_trials == 9
    assert spec_of(texts, transfer={"weight_decay": [0.01, 1]}).search.max_trials == 13
    assert spec.grid_tokens == 30 * spec.token_budgets[0]
    assert [target.name for target in spec.targets] == ["wide", "deep"]
    given = parametrization_of(spec, spec.targets[0])
    assert given.base["hidden_size"] == 16
    assert given.token_ratio == spec.tokens_of(spec.targets[0]) / spec.token_budgets[0]
    (tmp_path / "spec.yaml").write_text(dump_spec(spec))
    assert load_spec(tmp_path / "spec.yaml") == spec
    assert "init std 0.004 to 0.1; by completed_p to wide (" in summary(spec)
    spec.check_models()


def test_axes_are_placed_in_a_run_and_read_from_it(texts):
    spec = spec_of(texts, transfer={"weight_decay": [0.01, 1]})
    axes = {"init_std": 0.03, "weight_decay": 0.2}
    model, train = placed(spec, spec.models()["proxy"], spec.train, axes)
    assert (model.init_std, train.weight_decay, train.parametrization) == (0.03, 0.2, None)
    target = spec.targets[1]
    model, train = placed(spec, spec.target_model(target), spec.target_train(target), axes, target)
    assert train.parametrization.transfer(model).residual == 0.25
    assert axes_of(spec, {"model": model.identity(), "train": train.model_dump()}) == axes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": {"model": {}, "tokens": 1}}, "transfer.targets"),
        ({"sizes": {"a": {"hidden_size": 8, "heads": 1, "kv_heads": 1, "expert_size": 8},
                    "b": {"hidden_size": 16, "heads": 1, "kv_heads": 1, "expert_size": 8}}}, "one size, its proxy"),
        ({"budgets": ["20k", "40k"]}, "one budget"),
        ({"search": {"method": "surface"}}, "searches the init std with it"),
        ({"transfer": {"targets": [TARGET | {"name": "proxy"}]}}, "name of the proxy"),
        ({"transfer": {"targets": [TARGET, TARGET]}}, "two have the name"),
        ({"transfer": {"targets": []}}, "targets"),
        ({"transfer": {"init_std": [0.1, 0.01]}}, "range is empty"),
        ({"transfer": {"init_std": 0.02}}, "a range is two values"),
        ({"transfer": {"rule": "completed"}}, "no parametrization and no file"),
        ({"transfer": {"choose": {"router": "outptu"}}}, "the options are"),
        ({"transfer": {"alpha": 2}}, "alpha"),
        ({"model": {"head_dim": 8, "experts": 4, "top_k": 2, "layers": 1, "init_std": 0.02}}, "transfer.init_std"),
        ({"train": {"seq_len": 32, "batch_tokens": 512, "parametrization": {"base": {}}}}, "parametrization"),
        ({"transfer": {"targets": [TARGET | {"ratios": {"width": -1}}]}}, "above 0"),
        ({"train": {"seq_len": 32, "batch_tokens": 512, "optimizer": "muon"}}, "transfer: .*take choose"),
        ({"transfer": {"targets": [TARGET | {"tokens": 5}]}}, "less than one batch"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(texts, changes, words):
    with pytest.raises(pydantic.ValidationError, match=words):
        spec_of(texts, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratios": {"width": 8}}, r"ratios.width is given as 8, and 4 follows"),
        ({"model": TARGET["model"] | {"tied_embeddings": True}}, "untie"),
        ({"model": TARGET["model"] | {"dense_layers": 1, "dense_size": 64}}, "no tensor like it"),
        ({"model": TARGET["model"] | {"residual_multiplier": 0.5}}, "0.5 here and 1 in the proxy"),
    ],
)
def test_models_that_cannot_be_compared_are_named_before_anything_is_trained(texts, changes, words):
    with pytest.raises(SpecError, match=f"transfer.targets: wide: .*{words}"):
        with_target(texts, **changes).check_models()


def test_a_rule_that_needs_a_place_which_the_model_has_not(texts):
    spec = spec_of(texts, transfer={"rule": "completep"})
    with pytest.raises(SpecError, match="has no place for it; multipliers: fold"):
        spec.check_models()
    spec_of(texts, transfer={"rule": "completep", "multipliers": "fold"}).check_models()


def test_what_no_rule_covers_is_named_with_what_sources_say(texts):
    spec = with_target(texts, model=TARGET["model"] | {"experts": 8, "expert_size": 32, "head_dim": 4})
    spec.check_models()
    text = " ".join(transfer_warnings(spec))
    for what in ('experts is 4 in the proxy and 8 in "wide"', "head_dim is 8", "granularity", "Table 2"):
        assert what in text
    assert transfer_warnings(with_target(texts)) == []
    moved = with_target(texts, tokens="20k")
    assert "tokens" in " ".join(transfer_warnings(StudySpec.model_validate(moved.model_dump() | {
        "transfer": moved.model_dump()["transfer"] | {"rule": "mup"}})))  # fmt: skip


def test_an_own_table_is_read_from_a_file_and_kept(texts, tmp_path):
    rows = [{"quantity": "lr", "roles": ["hidden", "experts_in"], "width": -1, "source": "own"}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"terms": rows}))
    data = yaml.safe_load(SPEC)
    data["corpus"]["files"] = [str(texts)]
    data["transfer"]["rule"] = "mine.yaml"
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(data))
    spec = load_spec(tmp_path / "spec.yaml")
    assert spec.transfer.table().name == "mine"
    (tmp_path / "mine.yaml").unlink()
    assert StudySpec.model_validate(spec.model_dump()) == spec


def test_another_trainer_gets_the_ratios(tmp_path):
    spec = StudySpec.model_validate(EXTERNAL)
    target = spec.targets[0]
    model, _ = placed(spec, spec.target_model(target), spec.train, {"init_std": 0.03}, target)
    assert model.args == {"init_std": 0.03, "width_ratio": 4, "depth_ratio": 1, "token_ratio": 4, "batch_ratio": 1}
    model, _ = placed(spec, spec.models()["proxy"], spec.train, {"init_std": 0.03})
    assert {model.args[f"{name}_ratio"] for name in ("width", "depth", "token", "batch")} == {1.0}
    assert axes_of(spec, {"args": model.args}) == {"init_std": 0.03}
    spec.check_models()
    for changes, words in (
        ({"command": [*RUN[:4], "--steps", "{steps}"]}, r"no \{init_std\}"),
        ({"command": [*RUN[:6], "--steps", "{steps}"]}, r'no \{width_ratio\}, which is 4 at "wide"'),
        ({"transfer": EXTERNAL["transfer"] | {"targets": [{"name": "w", "model": {"params": 5}, "tokens": "1M"}]}},
         "needs ratios.width"),
        ({"sizes": {"proxy": {"params": "1M", "args": {"init_std": 0.02}}}}, "is set by transfer"),
    ):  # fmt: skip
        with pytest.raises(pydantic.ValidationError, match=words):
            StudySpec.model_validate(EXTERNAL | changes)


def test_a_dense_model_of_transformers_transfers_too(texts):
    pytest.importorskip("transformers")
    shared = {"model_type": "qwen3", "num_hidden_layers": 2, "head_dim": 8, "tie_word_embeddings": False}
    proxy, wide = (
        {
            "hf": {
                "hidden_size": h,
                "intermediate_size": 2 * h,
                "num_attention_heads": h // 8,
                "num_key_value_heads": h // 16,
            }
        }
        for h in (16, 64)
    )
    parts = {"model": {"hf": shared}, "sizes": {"proxy": proxy}}
    spec = spec_of(texts, **parts, transfer={"targets": [{"name": "wide", "model": wide, "tokens": "40k"}]})
    spec.check_models()
    (target,) = spec.targets
    model, train = placed(spec, spec.target_model(target), spec.train, {"init_std": 0.03}, target)
    assert model.hf["initializer_range"] == 0.03
    factors = {one.role: one.factors["lr"] for one in train.parametrization.transfer(model).tensors}
    assert (factors["dense_in"], factors["lm_head"], factors["embedding"]) == (0.25, 0.25, 1.0)
    deep = {"hf": proxy["hf"] | {"num_hidden_layers": 4}}
    deeper = spec_of(texts, **parts, transfer={"targets": [{"name": "deep", "model": deep, "tokens": "40k"}]})
    with pytest.raises(SpecError, match="qwen3 has no place for it; multipliers: fold"):
        deeper.check_models()
    targets = {"targets": [{"name": "wide", "model": wide, "tokens": "40k"}]}
    with pytest.raises(pydantic.ValidationError, match=r"initializer_range: transfer searches"):
        spec_of(texts, model={"hf": shared | {"initializer_range": 0.02}}, sizes={"proxy": proxy}, transfer=targets)
