"""Hugging Face transformers: YAML of `TrainingArguments`, as `HfArgumentParser.parse_yaml_file` reads it."""

from __future__ import annotations

from raylr.analysis.units import format_lr
from raylr.recipes.recipe import Recipe


def write(recipe: Recipe) -> str:
    """Return the fragment."""
    return (
        recipe.comments()
        + "# a checkpoint that is resumed keeps its own LR; this one is then ignored\n"
        + f"""learning_rate: {format_lr(recipe.lr)}  # {recipe.why("lr")}
{scheduler(recipe)}
warmup_steps: {recipe.warmup_steps}  # {recipe.why("warmup")}
max_steps: {recipe.steps}  # tokens / batch
per_device_train_batch_size: {recipe.micro_batch}
gradient_accumulation_steps: {recipe.accumulation}  # {recipe.step}
optim: adamw_torch
weight_decay: {recipe.weight_decay:g}  # {recipe.why("weight_decay")}
adam_beta1: {recipe.beta1:g}  # {recipe.why("beta1")}
adam_beta2: {recipe.beta2:g}  # {recipe.why("beta2")}
adam_epsilon: {recipe.eps:.1e}
max_grad_norm: {recipe.clip:g}
# sequences of {recipe.seq_len} tokens ({recipe.why("seq_len")}): set by how the data are packed
"""
    )


def scheduler(recipe: Recipe) -> str:
    """Return the keys of the schedule, in transformers' names."""
    origin = f"{recipe.schedule}, {recipe.why('schedule')}"
    if recipe.schedule == "cosine":
        kind, options = "cosine_with_min_lr", {"min_lr_rate": f"{recipe.min_lr / recipe.lr:.4g}"}
    elif recipe.schedule == "wsd":
        kind = "warmup_stable_decay"
        options = {"num_decay_steps": str(recipe.decay_steps), "decay_type": "linear", "min_lr_ratio": "0.0"}
    else:
        kind, options = {"constant": "constant_with_warmup", "linear": "linear"}[recipe.schedule], {}
    lines = [f"lr_scheduler_type: {kind}  # {origin}"]
    if options:
        lines += ["lr_scheduler_kwargs:", *(f"  {name}: {value}" for name, value in options.items())]
    return "\n".join(lines)
