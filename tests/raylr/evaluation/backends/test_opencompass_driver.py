import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from raylr.evaluation.backends import opencompass_driver
from raylr.evaluation.backends.opencompass import OpenCompass
from raylr.evaluation.environment import Environment
from raylr.evaluation.spec import ScoresSpec

PLAIN = "transformers-cpu-float32"
REQUEST = {
    "model": "/model",
    "work": "/work",
    "engine": "turbomind",
    "device": "cpu",
    "dtype": "float32",
    "passes": 1,
    "gpus": 2,
    "allow_fallback": False,
    "batch_size": 8,
    "max_seq_len": 4096,
    "max_out_len": 4,
}


def test_the_configuration_for_turbomind() -> None:
    config = opencompass_driver.model_config(REQUEST)
    assert config["type"] == "opencompass.models.TurboMindModel"
    assert config["engine_config"] == {
        "session_len": 4096,
        "max_batch_size": 64,
        "tp": 2,
        "enable_prefix_caching": False,
    }
    assert config["run_cfg"] == {"num_gpus": 2}
    plain = opencompass_driver.model_config(REQUEST | {"engine": "transformers"})
    assert plain["type"] == opencompass_driver.MODEL
    assert plain["model_kwargs"] == {"device_map": "cpu", "torch_dtype": "torch.float32"}


@pytest.mark.parametrize(
    ("runs", "allowed", "outcome"),
    [
        ("turbomind", False, "turbomind"),
        ("turbomind", True, "turbomind"),
        ("pytorch", True, "lmdeploy-pytorch"),
        ("pytorch", False, "in its pytorch engine, not in TurboMind"),
        (None, True, PLAIN),
        (None, False, "No module named 'lmdeploy'"),
    ],
)
def test_another_engine_runs_only_if_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, runs: str | None, allowed: bool, outcome: str
) -> None:
    """`runs`: the engine that LMDeploy takes, None without LMDeploy."""

    def build(config: dict[str, Any]) -> Any:
        if config["type"] == opencompass_driver.MODEL:
            return object()
        if runs is None:
            raise ModuleNotFoundError("No module named 'lmdeploy'")
        return types.SimpleNamespace(pipe=types.SimpleNamespace(async_engine=types.SimpleNamespace(backend=runs)))

    monkeypatch.setitem(sys.modules, "opencompass.utils", types.SimpleNamespace(build_model_from_cfg=build))
    registered = types.SimpleNamespace(register=lambda name, one_pass: None)
    monkeypatch.setitem(sys.modules, "opencompass_model", registered)
    monkeypatch.setattr(opencompass_driver, "as_config", lambda fields, work: fields)
    request = REQUEST | {"allow_fallback": allowed}
    if " " in outcome:
        with pytest.raises((RuntimeError, ImportError), match=outcome):
            opencompass_driver.build_model(request)
    else:
        engine = opencompass_driver.build_model(request)[2]
        assert engine == outcome
        assert engine in engines(engine="turbomind", gpus=1, allow_fallback=allowed)


def engines(**fields: Any) -> tuple[str, ...]:
    spec = ScoresSpec(data=Path("questions"), backend="opencompass", **fields)
    return OpenCompass(spec=spec, environment=Environment(folder=Path("nowhere"), versions={})).engines


def test_the_names_of_engines() -> None:
    assert engines() == (PLAIN,) == engines(allow_fallback=True)
    assert engines(device="cuda", gpus=1, dtype="bfloat16") == ("transformers-cuda-bfloat16",)
    assert engines(passes=4) == (f"{PLAIN}-4-passes",)
    assert engines(engine="turbomind", gpus=1) == ("turbomind",)


def test_code_that_a_folder_brings_is_no_model_for_lmdeploy(tmp_path: Path) -> None:
    opencompass_driver.check_no_code(str(tmp_path), "turbomind")
    fields = {"auto_map": {"AutoTokenizer": ["tokenization.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    opencompass_driver.check_no_code(str(tmp_path), "transformers")
    with pytest.raises(ValueError, match="brings Python code of its own"):
        opencompass_driver.check_no_code(str(tmp_path), "turbomind")


def test_what_losses_were_divided_by() -> None:
    """By LMDeploy: by the tokens that have a loss."""
    model = types.SimpleNamespace(
        tokenizer=lambda prompt: {"input_ids": list(prompt)},
        ids=list,
        divisor={"abc": 1, "abcdef": 5}.__getitem__,
    )
    assert opencompass_driver.divisors(model, "turbomind", ["abc", "abcdef"]) == ([2, 5], 6)
    assert opencompass_driver.divisors(model, PLAIN, ["abc", "abcdef"]) == ([1, 5], 6)


def test_each_portion_has_its_folder_and_its_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [{"name": name, "reader_cfg": {"output_column": "target"}} for name in ("anatomy", "virology")]
    module = types.SimpleNamespace(mmlu_datasets=known)
    monkeypatch.setitem(sys.modules, "opencompass.configs.datasets.mmlu.mmlu_ppl_ac766d", module)
    portions = [["mmlu", "anatomy", 0, 100], ["mmlu", "anatomy", 100, 135], ["mmlu", "virology", 3, 4]]
    request = {"mode": "ppl", "folders": {"mmlu": "/data/mmlu"}, "portions": portions}
    found = opencompass_driver.datasets(request)
    assert [(one["name"], one["path"], one["reader_cfg"]["test_range"]) for one in found] == [
        ("anatomy", "/data/mmlu", "[0:100]"),
        ("anatomy", "/data/mmlu", "[100:135]"),
        ("virology", "/data/mmlu", "[3:4]"),
    ]
    assert known[0]["reader_cfg"] == {"output_column": "target"}
    with pytest.raises(ValueError, match="has no subject 'nothing'"):
        opencompass_driver.datasets(request | {"portions": [["mmlu", "nothing", 0, 1]]})
