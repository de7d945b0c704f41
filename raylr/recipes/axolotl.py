"""Axolotl: keys of its YAML."""

from __future__ import annotations

from raylr.analysis.units import format_lr
from raylr.recipes.hf import scheduler
from raylr.recipes.recipe import Recipe


def write(recipe: Recipe) -> str:
    """Return the fragment. Axolotl has its own key for the end of a cosine; other schedules are transformers'."""
    if recipe.schedule == "cosine":
        keys = f"lr_scheduler: cosine  # {recipe.why('schedule')}\ncosine_min_lr_ratio: {recipe.min_lr / recipe.lr:.4g}"
    else:
        keys = scheduler(recipe).replace("lr_scheduler_type:", "lr_scheduler:")
    return (
        recipe.comments()
        + f"""learning_rate: {format_lr(recipe.lr)}  # {recipe.why("lr")}
{keys}
warmup_steps: {recipe.warmup_steps}  # {recipe.why("warmup")}
max_steps: {recipe.steps}  # tokens / batch
micro_batch_size: {recipe.micro_batch}
gradient_accumulation_steps: {recipe.accumulation}  # {recipe.step}
sequence_len: {recipe.seq_len}  # {recipe.why("seq_len")}
optimizer: adamw_torch_fused
weight_decay: {recipe.weight_decay:g}  # {recipe.why("weight_decay")}
adam_beta1: {recipe.beta1:g}  # {recipe.why("beta1")}
adam_beta2: {recipe.beta2:g}  # {recipe.why("beta2")}
adam_epsilon: {recipe.eps:.1e}
max_grad_norm: {recipe.clip:g}
"""
    )
