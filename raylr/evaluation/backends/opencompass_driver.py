"""OpenCompass on one model, subject after subject, in one process: runs inside OpenCompass's own environment.

The backend `opencompass` starts it as `python -I opencompass_driver.py REQUEST EVENTS`; nothing of raylr is
imported. REQUEST is a JSON file that it wrote, EVENTS the number of a file descriptor that takes an event a line:

    {"event": "at", "where": …}                       what is done next
    {"event": "data", "folders": {suite: folder}}     OpenCompass's own download; for a request with "fetch"
    {"event": "ready", "engine", "versions", "context"}
                                                      the model is loaded, scoring begins; tokens that a prompt may have
    {"event": "portion", "portion", "predictions", "results", "divisors", "tokens"}
                                                      number of a finished portion in the request; OpenCompass's
                                                      files of it; in mode "ppl" what each loss was divided by; the
                                                      longest prompt in tokens
    {"event": "failed", "where": …, "error": …}       and exit status 1

Standard input is a pipe whose other end the starting process holds: when that process ends, however it ends, so do this
one and all that it started. The model is loaded once; each portion goes through OpenCompass's partitioner and its
inference and evaluation tasks itself, so that a kill costs one portion and no exception becomes exit status 0.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.metadata import distributions
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
MODEL = "LetterModel"
"""Name under which `opencompass_model` registers its class with OpenCompass."""

Emit = Callable[..., None]
"""Writes an event, given as keyword arguments, to the process that started this one."""


def datasets(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return OpenCompass's configuration of each requested portion, with its folder and its questions."""
    known: dict[str, dict[str, Any]] = {}
    found = []
    for suite, subject, start, stop in request["portions"]:
        name = CONFIGS[suite, request["mode"]]
        if suite not in known:
            module = importlib.import_module(f"opencompass.configs.datasets.{suite}.{name}")
            known[suite] = {config["name"]: config for config in getattr(module, f"{suite}_datasets")}
        if subject not in known[suite]:
            raise ValueError(f"OpenCompass's {name} has no subject {subject!r}")
        config = dict(known[suite][subject], path=request["folders"][suite])
        # text, because OpenCompass takes a random sample for a number
        config["reader_cfg"] = dict(config["reader_cfg"], test_range=f"[{start}:{stop}]")
        found.append(config)
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
    return shared | {"type": MODEL, "model_kwargs": kwargs, "run_cfg": {"num_gpus": 0}}


def check_no_code(path: str, engine: str) -> None:
    """Raise ValueError if LMDeploy would run Python code that a model's folder brings: it has no option against it."""
    for name in ("config.json", "tokenizer_config.json"):
        file = Path(path) / name
        if engine != "transformers" and file.is_file() and "auto_map" in json.loads(file.read_text(encoding="utf-8")):
            raise ValueError(f"{path} brings Python code of its own (auto_map), which LMDeploy would run")


def build_model(request: dict[str, Any]) -> tuple[Any, dict[str, Any], str]:
    """Load the model; return it, its configuration and the engine that computes.

    LMDeploy silently takes another engine than TurboMind where TurboMind cannot run the model. That, and
    transformers where LMDeploy cannot be used at all, is an error unless the request allows it.
    """
    check_no_code(request["model"], request["engine"])
    build = importlib.import_module("opencompass.utils").build_model_from_cfg
    sibling("opencompass_model").register(MODEL, one_pass=request["passes"] == 1)
    config = as_config({"models": [model_config(request)]}, Path(request["work"]))["models"][0]
    if request["engine"] == "transformers":
        several = "" if request["passes"] == 1 else f"-{request['passes']}-passes"
        return build(config), config, f"transformers-{request['device']}-{request['dtype']}{several}"
    try:
        model = build(config)
    except Exception:  # of LMDeploy's own: printed, and an error unless the user allows the other engine
        if not request["allow_fallback"]:
            raise
        traceback.print_exc()
        return build_model(request | {"engine": "transformers"})
    backend = str(model.pipe.async_engine.backend)
    if backend != "turbomind" and not request["allow_fallback"]:
        raise RuntimeError(f"LMDeploy would run this model in its {backend} engine, not in TurboMind")
    return model, config, "turbomind" if backend == "turbomind" else f"lmdeploy-{backend}"


def sibling(name: str) -> Any:
    """Import a module beside this file, whose folder is not on the path: names in it would hide packages."""
    if name not in sys.modules:
        spec: Any = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def as_config(fields: dict[str, Any], work: Path) -> Any:
    """Return OpenCompass's configuration object."""
    return importlib.import_module("mmengine.config").Config(fields | {"work_dir": str(work)})


def run_portion(model: Any, model_cfg: Any, dataset: dict[str, Any], work: Path) -> tuple[Path, Path]:
    """Put one portion through OpenCompass.

    Args:
        model: The loaded model, as OpenCompass wraps it.
        model_cfg: OpenCompass's configuration of it.
        dataset: OpenCompass's configuration of the portion.
        work: A folder of the portion's own.

    Returns:
        The file of predictions and the file of results.
    """
    partitioner = importlib.import_module("opencompass.partitioners").NaivePartitioner
    tasks = importlib.import_module("opencompass.tasks")
    utils = importlib.import_module("opencompass.utils")
    config = as_config({"models": [dict(model_cfg)], "datasets": [dataset]}, work)
    files = []
    for kind in ("predictions", "results"):
        folder = str(work / kind)
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

    LMDeploy 0.18 divides by the tokens that have a loss, all but the first.
    """
    if engine.startswith("transformers"):
        return [model.divisor(prompt) for prompt in prompts], max(len(model.ids(prompt)) for prompt in prompts)
    lengths = [len(model.tokenizer(prompt)["input_ids"]) for prompt in prompts]
    return [length - 1 for length in lengths], max(lengths)


def score(request: dict[str, Any], emit: Emit) -> None:
    """Load the model and score all portions of the request."""
    emit(event="at", where="loading OpenCompass")
    configs = datasets(request)
    emit(event="at", where="loading the model")
    model, model_cfg, engine = build_model(request)
    found = {item.metadata["Name"].lower(): item.version for item in distributions()}
    versions = {"python": sys.version.split()[0]} | {name: found[name] for name in PACKAGES if name in found}
    context = min(request["max_seq_len"], model.max_seq_len)
    model_cfg["max_seq_len"] = context
    emit(event="ready", engine=engine, versions=versions, context=context)
    for number, config in enumerate(configs):
        suite, subject, *_ = request["portions"][number]
        emit(event="at", where=f"scoring {suite}/{subject}")
        predictions, results = run_portion(model, model_cfg, config, Path(request["work"]) / f"portion-{number}")
        prompts = prompts_of(predictions, request["mode"])
        if request["mode"] == "ppl":
            counts, longest = divisors(model, engine, prompts)
        else:
            counts, longest = [], max(len(model.tokenizer(prompt)["input_ids"]) for prompt in prompts)
        emit(
            event="portion",
            portion=number,
            predictions=str(predictions),
            results=str(results),
            divisors=counts,
            tokens=longest,
        )
        if engine.startswith("transformers"):
            model.forget()


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
