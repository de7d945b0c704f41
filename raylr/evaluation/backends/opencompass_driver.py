"""OpenCompass on one model, subject after subject, in one process: runs inside OpenCompass's own environment.

The backend `opencompass` starts it as `python -I opencompass_driver.py REQUEST EVENTS`; nothing of raylr is
imported. REQUEST is a JSON file that it wrote, EVENTS the number of a file descriptor that takes an event a line:

    {"event": "at", "where": …}                       what is done next
    {"event": "data", "folders": {suite: folder}}     OpenCompass's own download; for a request with "fetch"
    {"event": "ready", "engine": …, "versions": {…}}  the model is loaded, scoring begins
    {"event": "subject", "suite", "subject", "predictions", "results", "divisors", "tokens"}
                                                      OpenCompass's two files of a finished subject; in mode "ppl" what
                                                      each mean loss was divided by; the longest prompt in tokens
    {"event": "failed", "where": …, "error": …}       and exit status 1

Standard input is a pipe whose other end the starting process holds: when that process ends, however it ends, so do this
one and all that it started. The model is loaded once; each subject goes through OpenCompass's partitioner and its
inference and evaluation tasks by itself, so that a kill costs one subject and no exception becomes exit status 0.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

CONFIGS = {
    ("mmlu", "ppl"): "mmlu_ppl_ac766d",
    ("mmlu", "gen"): "mmlu_gen_4d595a",
    ("cmmlu", "ppl"): "cmmlu_ppl_8b9c76",
    ("cmmlu", "gen"): "cmmlu_gen_c13365",
}
"""OpenCompass's dataset configurations for base models."""

PACKAGES = ("opencompass", "torch", "transformers", "lmdeploy")

Emit = Callable[..., None]
"""Writes an event, given as keyword arguments, to the process that started this one."""


def datasets(request: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return OpenCompass's configuration of each requested subject, with its folder and its portion of questions."""
    found = {}
    for suite in dict.fromkeys(suite for suite, *_ in request["portions"]):
        name = CONFIGS[suite, request["mode"]]
        module = importlib.import_module(f"opencompass.configs.datasets.{suite}.{name}")
        known = {config["name"]: config for config in getattr(module, f"{suite}_datasets")}
        for _, subject, start, stop in (item for item in request["portions"] if item[0] == suite):
            if subject not in known:
                raise ValueError(f"OpenCompass's {name} has no subject {subject!r}")
            config = dict(known[subject], path=request["folders"][suite])
            # text, because OpenCompass takes a random sample for a number
            config["reader_cfg"] = dict(config["reader_cfg"], test_range=f"[{start}:{stop}]")
            found[suite, subject] = config
    return found


def model_config(request: dict[str, Any]) -> dict[str, Any]:
    """Return OpenCompass's configuration of the model: Hugging Face transformers, or LMDeploy's TurboMind on GPUs."""
    shared = {
        "abbr": "model",
        "path": request["model"],
        "max_seq_len": request["max_seq_len"],
        "max_out_len": request["max_out_len"],
        "batch_size": request["batch_size"],
    }
    if request["engine"] == "turbomind":
        engine = {
            "session_len": request["max_seq_len"],
            "max_batch_size": max(64, request["batch_size"]),
            "tp": request["gpus"],
            "enable_prefix_caching": False,  # perplexities cannot be computed with it
        }
        return shared | {
            "type": "opencompass.models.TurboMindModel",
            "engine_config": engine,
            "run_cfg": {"num_gpus": request["gpus"]},
        }
    kwargs = {"device_map": request["device"], "torch_dtype": f"torch.{request['dtype']}"}
    return shared | {"type": "StrictBaseModel", "model_kwargs": kwargs, "run_cfg": {"num_gpus": 0}}


def register_strict_model() -> None:
    """Register `StrictBaseModel`: OpenCompass's Hugging Face model for base models, refusing what does not fit.

    OpenCompass's own takes a model without a language-modelling head when transformers finds none, and leaves weights
    random that are not in the folder; both would be scored. It also calls a method that transformers 5 has removed.
    """
    base: Any = importlib.import_module("opencompass.models").HuggingFaceBaseModel
    models: Any = importlib.import_module("opencompass.registry").MODELS

    class StrictBaseModel(base):  # type: ignore[misc]  # no types
        def _load_tokenizer(self, path: str, kwargs: dict[str, Any], pad_token_id: int | None = None) -> None:
            # OpenCompass's default is to run Python code that a model's folder brings
            super()._load_tokenizer(path, kwargs | {"trust_remote_code": False}, pad_token_id)
            self.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # generation refuses token types
            if not hasattr(self.tokenizer, "batch_encode_plus"):
                self.tokenizer.batch_encode_plus = self.tokenizer.__call__

        def _load_model(self, path: str, kwargs: dict[str, Any], **unused: Any) -> None:
            dtype = kwargs["torch_dtype"].removeprefix("torch.")
            self.model = load_strictly(path, self.tokenizer, device=kwargs["device_map"], dtype=dtype)

    models.register_module(module=StrictBaseModel)


def load_strictly(path: str, tokenizer: Any, *, device: str, dtype: str) -> Any:
    """Load a causal language model of Hugging Face's for greedy use.

    Raises ValueError for weights that are missing, too many or of another shape (transformers would leave the model's
    random ones), and for a tokenizer larger than the vocabulary.
    """
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    placed = {} if device == "cpu" else {"device_map": device}
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        path,
        output_loading_info=True,
        torch_dtype=getattr(torch, dtype),
        weights_only=True,  # a pickle's code is not run
        trust_remote_code=False,
        **placed,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            names = sorted(str(key) for key in report[kind])
            raise ValueError(
                f"{len(names)} weights of the model in {path} are {kind.removesuffix('_keys')}, as {names[0]}"
            )
    rows, tokens = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if tokens > rows:
        raise ValueError(f"the tokenizer in {path} has {tokens} tokens and the model's vocabulary {rows}")
    model.eval()
    model.generation_config.do_sample = False
    return model


def check_folder(path: str, engine: str) -> None:
    """Check that the programs here read a model's folder as it is meant, and run no code that it brings.

    transformers 4 reads the RoPE base of a model that version 5 saved as 10,000, without a message, and does not know
    its tokenizer. LMDeploy runs Python code that a folder brings, with no option against it.

    Raises:
        ValueError: They do not.
    """
    fields: dict[str, Any] = {}
    for name in ("config.json", "tokenizer_config.json"):
        file = Path(path) / name
        fields[name] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    here = version("transformers")
    newer = (
        "rope_parameters" in fields["config.json"] and "rope_theta" not in fields["config.json"],
        fields["tokenizer_config.json"].get("tokenizer_class") == "TokenizersBackend",
    )
    if int(here.partition(".")[0]) < 5 and any(newer):
        raise ValueError(f"{path} was saved by transformers 5, and this environment has {here}, which misreads it")
    if engine != "transformers" and any("auto_map" in found for found in fields.values()):
        raise ValueError(f"{path} brings Python code of its own (auto_map), which LMDeploy would run")


def build_model(request: dict[str, Any]) -> tuple[Any, dict[str, Any], str]:
    """Load the model; return it, its configuration and the engine that computes.

    LMDeploy silently takes another engine than TurboMind where TurboMind cannot run the model. That, and
    transformers where LMDeploy cannot be used at all, is an error unless the request allows it.
    """
    check_folder(request["model"], request["engine"])
    build = importlib.import_module("opencompass.utils").build_model_from_cfg
    register_strict_model()
    config = as_config({"models": [model_config(request)]}, request)["models"][0]
    if request["engine"] == "transformers":
        return build(config), config, f"transformers-{request['device']}-{request['dtype']}"
    try:
        model = build(config)
    except Exception:
        if not request["allow_fallback"]:
            raise
        traceback.print_exc()
        return build_model(request | {"engine": "transformers"})
    backend = str(model.pipe.async_engine.backend)
    if backend != "turbomind" and not request["allow_fallback"]:
        raise RuntimeError(f"LMDeploy would run this model in its {backend} engine, not in TurboMind")
    return model, config, "turbomind" if backend == "turbomind" else f"lmdeploy-{backend}"


def as_config(fields: dict[str, Any], request: dict[str, Any]) -> Any:
    """Return OpenCompass's configuration object."""
    return importlib.import_module("mmengine.config").Config(fields | {"work_dir": request["work"]})


def run_subject(model: Any, model_cfg: Any, dataset: dict[str, Any], request: dict[str, Any]) -> tuple[Path, Path]:
    """Put one subject through OpenCompass; return its files of predictions and results."""
    partitioner = importlib.import_module("opencompass.partitioners").NaivePartitioner
    tasks = importlib.import_module("opencompass.tasks")
    utils = importlib.import_module("opencompass.utils")
    config = as_config({"models": [dict(model_cfg)], "datasets": [dataset]}, request)
    files = []
    for kind in ("predictions", "results"):
        folder = str(Path(request["work"]) / kind)
        (task,) = partitioner(out_dir=folder, n=1)(config)
        if kind == "predictions":
            tasks.OpenICLInferTask(task).run(cur_model=model, cur_model_abbr=model_cfg["abbr"])
        else:
            task["eval"] = {"runner": {"task": {"dump_details": True}}}
            tasks.OpenICLEvalTask(task).run()
        files.append(Path(utils.get_infer_output_path(config["models"][0], config["datasets"][0], folder)))
    return files[0], files[1]


def prompts_of(predictions: Path, mode: str) -> list[str]:
    """Return the prompts in a file of predictions: four a question in mode "ppl", in the order of the letters."""
    rows = json.loads(predictions.read_text(encoding="utf-8"))
    ordered = [rows[str(index)] for index in range(len(rows))]
    if mode == "gen":
        return [row["origin_prompt"] for row in ordered]
    return [row[f"label: {letter}"]["prompt"] for row in ordered for letter in "ABCD"]


def divisors(model: Any, engine: str, prompts: list[str]) -> tuple[list[int], int]:
    """Return what each prompt's loss was divided by to give its "PPL", and the number of tokens of the longest prompt.

    OpenCompass's Hugging Face model divides by all tokens that are no padding (the first has no loss), LMDeploy 0.18 by
    the tokens that have a loss.
    """
    found, longest = [], 0
    for prompt in prompts:
        ids = model.tokenizer(prompt)["input_ids"]
        longest = max(longest, len(ids))
        if engine.startswith("transformers"):
            found.append(sum(token != model.tokenizer.pad_token_id for token in ids[-model.max_seq_len :]))
        else:
            found.append(len(ids) - 1)
    return found, longest


def score(request: dict[str, Any], emit: Emit) -> None:
    """Load the model and score all subjects of the request."""
    emit(event="at", where="loading OpenCompass")
    configs = datasets(request)
    emit(event="at", where="loading the model")
    model, model_cfg, engine = build_model(request)
    found = {item.metadata["Name"].lower(): item.version for item in distributions()}
    versions = {"python": sys.version.split()[0]} | {name: found[name] for name in PACKAGES if name in found}
    emit(event="ready", engine=engine, versions=versions)
    for (suite, subject), config in configs.items():
        emit(event="at", where=f"scoring {suite}/{subject}")
        predictions, results = run_subject(model, model_cfg, config, request)
        counts, longest = divisors(model, engine, prompts_of(predictions, request["mode"]))
        emit(
            event="subject",
            suite=suite,
            subject=subject,
            predictions=str(predictions),
            results=str(results),
            divisors=counts if request["mode"] == "ppl" else [],
            tokens=longest,
        )


def fetch(request: dict[str, Any], emit: Emit) -> None:
    """Emit where OpenCompass has the questions of the suites, which it downloads first if it has to."""
    emit(event="at", where="downloading the questions")
    locate = importlib.import_module("opencompass.utils").get_data_path
    emit(
        event="data", folders={suite: str(Path(locate(f"opencompass/{suite}")).resolve()) for suite in request["fetch"]}
    )


def end_with_parent() -> None:
    """End this process and all that it started (it leads their group) when the process that started it is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def serve(path: str, descriptor: str, carry_out: Callable[[dict[str, Any], Emit], None]) -> int:
    """Let `carry_out` do the request in a file, with a function that emits its events; return the exit status."""
    end_with_parent()
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    where = "starting"
    os.set_inheritable(int(descriptor), False)
    with os.fdopen(int(descriptor), "w", encoding="utf-8", buffering=1) as events:

        def emit(**event: Any) -> None:
            nonlocal where
            where = event.get("where", where)
            events.write(json.dumps(event) + "\n")

        try:
            carry_out(request, emit)
        except Exception as error:
            try:
                traceback.print_exc()
            finally:  # whether or not there is room for it on the disk
                line = next(iter(str(error).strip().splitlines()), "")  # the log has all of it
                emit(event="failed", where=where, error=f"{type(error).__name__}: {line}")
            return 1
    return 0


def main(path: str, descriptor: str) -> int:
    """Carry out the request in a file; return the exit status."""
    return serve(path, descriptor, lambda request, emit: (fetch if "fetch" in request else score)(request, emit))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
