"""Every recipe is read by its trainer's own parser where that is installed, else by one with its documented keys.

The written values were also read once by torchtitan 0.3.0, by axolotl 0.19.0's schema and by nanotron's and
Megatron-LM's dataclasses of August 2026; their names are in the lists below.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raylr.external.process import DISTRIBUTED
from raylr.recipes.recipe import SCHEDULES, Recipe
from raylr.recipes.targets import TARGETS

MEGATRON = {
    "optimizer": str, "lr": float, "min-lr": float, "lr-decay-style": str, "lr-decay-iters": int,
    "lr-warmup-iters": int, "lr-wsd-decay-style": str, "lr-wsd-decay-iters": int, "train-iters": int,
    "global-batch-size": int, "micro-batch-size": int, "seq-length": int, "weight-decay": float, "adam-beta1": float,
    "adam-beta2": float, "adam-eps": float, "clip-grad": float,
}  # fmt: skip
NANOTRON_TOKENS = {"sequence_length", "train_steps", "micro_batch_size", "batch_accumulation_per_replica"}
NANOTRON_OPTIMIZER = {"optimizer_factory", "weight_decay", "clip_grad", "accumulate_grad_in_fp32", "zero_stage",
                      "learning_rate_scheduler"}  # fmt: skip
NANOTRON_SCHEDULE = {"learning_rate", "lr_warmup_steps", "lr_warmup_style", "lr_decay_style", "lr_decay_starting_step",
                     "lr_decay_steps", "min_decay_lr"}  # fmt: skip
AXOLOTL = {"learning_rate", "lr_scheduler", "lr_scheduler_kwargs", "cosine_min_lr_ratio", "warmup_steps", "max_steps",
           "micro_batch_size", "gradient_accumulation_steps", "sequence_len", "optimizer", "weight_decay", "adam_beta1",
           "adam_beta2", "adam_epsilon", "max_grad_norm"}  # fmt: skip


def made(schedule: str) -> Recipe:
    decay = {"constant": 0, "wsd": 10}.get(schedule, 90)
    floor = {"constant": 1.0, "cosine": 0.1}.get(schedule, 0.0)
    return Recipe(
        lr=1.2e-3, min_lr=1.2e-3 * floor, schedule=schedule, steps=100, warmup_steps=10, decay_steps=decay, batch=256,
        seq_len=2048, ranks=8, micro_batch=2, weight_decay=0.1, beta1=0.9, beta2=0.95, notes=("law: LR = 1",),
    )  # fmt: skip


@pytest.fixture(params=SCHEDULES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return made(request.param)


def check_shape(recipe: Recipe, lrs: list[float], tolerance: float = 0.03) -> None:
    """The LR of each step has the recipe's shape: peak after the warmup, constant part, end."""
    peak, decay = recipe.lr, recipe.steps - recipe.decay_steps
    assert max(lrs) == pytest.approx(peak, rel=1e-3)
    assert lrs[0] < 0.25 * peak
    assert lrs[recipe.warmup_steps + 1] == pytest.approx(peak, rel=0.05)
    if decay > recipe.warmup_steps + 1:
        assert lrs[decay - 1] == pytest.approx(peak, rel=0.05)
    assert lrs[-1] == pytest.approx(
        recipe.min_lr, abs=tolerance * peak + (0.12 * peak if recipe.decay_steps < 20 else 0)
    )


def stepped(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    lrs = []
    for _ in range(steps):
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return lrs


def adamw(recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)


def test_hf_by_its_parser_and_its_scheduler(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DISTRIBUTED:  # DeepSpeed leaves them behind in a process that trained
        monkeypatch.delenv(name, raising=False)
    transformers = pytest.importorskip("transformers")
    file = tmp_path / "recipe.yaml"
    file.write_text(TARGETS["hf"].write(recipe) + f"output_dir: {tmp_path}\nuse_cpu: true\nreport_to: none\n")
    (arguments,) = transformers.HfArgumentParser(transformers.TrainingArguments).parse_yaml_file(str(file))
    assert arguments.learning_rate == recipe.lr
    assert (arguments.max_steps, arguments.weight_decay, arguments.adam_beta2) == (100, 0.1, 0.95)
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * 8 == 256
    optimizer = adamw(recipe)
    scheduler = transformers.get_scheduler(
        arguments.lr_scheduler_type, optimizer, num_warmup_steps=arguments.get_warmup_steps(100),
        num_training_steps=100, scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )  # fmt: skip
    check_shape(recipe, stepped(scheduler, optimizer, 100))


def test_deepspeed_by_its_config_and_its_scheduler(recipe: Recipe) -> None:
    hjson = pytest.importorskip("hjson")
    from deepspeed.runtime import lr_schedules
    from deepspeed.runtime.config import DeepSpeedConfig

    text = TARGETS["deepspeed"].write(dataclasses.replace(recipe, ranks=1))  # DeepSpeed checks it against the world's
    read = DeepSpeedConfig(json.loads(json.dumps(hjson.loads(text))))
    assert (read.train_batch_size, read.gradient_accumulation_steps, read.gradient_clipping) == (256, 128, 1.0)
    assert (read.optimizer_name, read.optimizer_params["lr"]) == ("adamw", recipe.lr)
    optimizer = adamw(recipe)
    scheduler = getattr(lr_schedules, read.scheduler_name)(optimizer, **read.scheduler_params)
    lrs = stepped(scheduler, optimizer, 100)
    if recipe.schedule == "wsd":  # which DeepSpeed lacks
        assert "DeepSpeed has no WSD schedule" in text
        check_shape(dataclasses.replace(recipe, schedule="constant", decay_steps=0, min_lr=recipe.lr), lrs)
    else:
        check_shape(recipe, lrs)


def test_megatron_by_its_arguments(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "recipe.sh"
    file.write_text(TARGETS["megatron"].write(recipe))
    command = ["bash", "-c", f'set -eu; source {file}; printf "%s\\n" "${{RAYLR_ARGS[@]}}"']
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, kind in MEGATRON.items():
        choices = ["constant", "linear", "cosine", "inverse-square-root", "WSD"] if name == "lr-decay-style" else None
        parser.add_argument(f"--{name}", type=kind, choices=choices)
    found = parser.parse_args(words)
    assert (found.lr, found.min_lr) == (pytest.approx(recipe.lr), pytest.approx(recipe.min_lr))
    assert (found.global_batch_size, found.seq_length, found.train_iters) == (256, 2048, 100)
    assert found.lr_wsd_decay_iters == (10 if recipe.schedule == "wsd" else None)


def test_nanotron_by_its_keys(recipe: Recipe) -> None:
    found = yaml.safe_load(TARGETS["nanotron"].write(recipe))
    assert set(found) == {"tokens", "optimizer"}
    assert set(found["tokens"]) == NANOTRON_TOKENS
    assert set(found["optimizer"]) == NANOTRON_OPTIMIZER
    schedule = found["optimizer"]["learning_rate_scheduler"]
    assert set(schedule) == NANOTRON_SCHEDULE
    assert schedule["learning_rate"] == recipe.lr
    assert schedule["lr_decay_starting_step"] + max(recipe.decay_steps, 0) == recipe.steps
    assert found["tokens"]["micro_batch_size"] * found["tokens"]["batch_accumulation_per_replica"] * 8 == 256


def test_axolotl_by_its_keys(recipe: Recipe) -> None:
    found = yaml.safe_load(TARGETS["axolotl"].write(recipe))
    assert set(found) <= AXOLOTL
    assert (found["learning_rate"], found["max_steps"], found["sequence_len"]) == (recipe.lr, 100, 2048)


@dataclasses.dataclass(kw_only=True)
class Schedule:
    """Fields of torchtitan's LRSchedulersContainer.Config."""

    warmup_steps: int = 200
    total_steps: int | None = None
    decay_ratio: float | None = None
    decay_type: str = "linear"
    min_lr_factor: float = 0.0


@dataclasses.dataclass(kw_only=True)
class Group:
    """Fields of torchtitan's ParamGroupConfig."""

    pattern: str
    optimizer_name: str
    optimizer_kwargs: dict[str, Any]


def test_torchtitan_by_its_fields(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torchtitan.components.optimizer")
    module.LRSchedulersContainer = types.SimpleNamespace(Config=Schedule)  # type: ignore[attr-defined]
    module.ParamGroupConfig = Group  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchtitan.components.optimizer", module)
    names: dict[str, Any] = {}
    exec(TARGETS["torchtitan"].write(recipe), names)
    config = types.SimpleNamespace(optimizer=types.SimpleNamespace(), training=types.SimpleNamespace())
    found = names["with_raylr"](config)
    (group,) = found.optimizer.param_groups
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], **group.optimizer_kwargs)
    assert group.optimizer_kwargs["lr"] == recipe.lr
    assert (found.training.steps, found.training.global_batch_size) == (100, 256)
    ratio = {"wsd": 0.1, "constant": 0.0}.get(recipe.schedule)
    assert found.lr_scheduler.decay_ratio == ratio


@pytest.mark.parametrize("target", TARGETS)
def test_every_recipe_states_the_law(target: str) -> None:
    assert "# law: LR = 1" in TARGETS[target].write(made("cosine"))
