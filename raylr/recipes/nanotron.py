"""nanotron: the sections `tokens` and `optimizer` of its YAML."""

from __future__ import annotations

from raylr.analysis.units import format_lr
from raylr.recipes.recipe import Recipe


def write(recipe: Recipe) -> str:
    """Return the fragment. Both the start and the length of the decay are written: without the length it is wrong."""
    style = "cosine" if recipe.schedule == "cosine" else "linear"
    start = recipe.steps - recipe.decay_steps
    decay = recipe.decay_steps or 1  # a constant LR decays to itself
    return (
        recipe.comments()
        + f"""tokens:
  sequence_length: {recipe.seq_len}  # {recipe.why("seq_len")}
  train_steps: {recipe.steps}  # tokens / batch
  micro_batch_size: {recipe.micro_batch}
  batch_accumulation_per_replica: {recipe.accumulation}  # {recipe.step}
optimizer:
  optimizer_factory:
    name: adamW
    adam_beta1: {recipe.beta1:g}  # {recipe.why("beta1")}
    adam_beta2: {recipe.beta2:g}  # {recipe.why("beta2")}
    adam_eps: {recipe.eps:.1e}
    torch_adam_is_fused: true
  weight_decay: {recipe.weight_decay:g}  # {recipe.why("weight_decay")}
  clip_grad: {recipe.clip:g}
  accumulate_grad_in_fp32: true
  zero_stage: 0
  learning_rate_scheduler:
    learning_rate: {format_lr(recipe.lr)}  # {recipe.why("lr")}
    lr_warmup_steps: {recipe.warmup_steps}  # {recipe.why("warmup")}
    lr_warmup_style: linear
    lr_decay_style: {style}  # {recipe.schedule}, {recipe.why("schedule")}
    lr_decay_starting_step: {start}
    lr_decay_steps: {decay}
    min_decay_lr: {format_lr(recipe.min_lr)}
"""
    )
