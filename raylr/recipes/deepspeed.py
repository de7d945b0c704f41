"""DeepSpeed: its configuration, which is Hjson and may have comments."""

from __future__ import annotations

from raylr.analysis.units import format_lr
from raylr.recipes.recipe import Recipe


def write(recipe: Recipe) -> str:
    """Return the fragment. DeepSpeed's warmup is logarithmic unless its type is given, and it has no WSD schedule."""
    note = ""
    if recipe.schedule == "wsd":
        note = (
            "# DeepSpeed has no WSD schedule: this is its constant part; decay over the last "
            f"{recipe.decay_steps} steps with a scheduler of your own\n"
        )
    return (
        recipe.comments()
        + note
        + f"""{{
  "train_batch_size": {recipe.batch}, # sequences; {recipe.why("batch")}
  "train_micro_batch_size_per_gpu": {recipe.micro_batch},
  "gradient_accumulation_steps": {recipe.accumulation}, # with {recipe.ranks} data-parallel ranks
  "gradient_clipping": {recipe.clip:g},
  "optimizer": {{
    "type": "AdamW",
    "params": {{
      "lr": {format_lr(recipe.lr)}, # {recipe.why("lr")}
      "betas": [{recipe.beta1:g}, {recipe.beta2:g}], # {recipe.why("beta1")}; {recipe.why("beta2")}
      "eps": {recipe.eps:g},
      "weight_decay": {recipe.weight_decay:g} # {recipe.why("weight_decay")}
    }}
  }},
  "scheduler": {_scheduler(recipe)}
}}
# {recipe.steps} steps of {recipe.batch} sequences of {recipe.seq_len} tokens
"""
    )


def _scheduler(recipe: Recipe) -> str:
    lr, origin = format_lr(recipe.lr), f"{recipe.schedule}, {recipe.why('schedule')}"
    if recipe.schedule == "cosine":
        ratio = f"{recipe.min_lr / recipe.lr:.4g}"
        kind = "WarmupCosineLR"
        params = (
            f'"total_num_steps": {recipe.steps}, "warmup_num_steps": {recipe.warmup_steps}, "warmup_type": "linear",'
        )
        params += f' "warmup_min_ratio": 0.0, "cos_min_ratio": {ratio}'
    else:
        kind = "WarmupDecayLR" if recipe.schedule == "linear" else "WarmupLR"
        total = f'"total_num_steps": {recipe.steps}, ' if recipe.schedule == "linear" else ""
        params = (
            f'{total}"warmup_min_lr": 0, "warmup_max_lr": {lr}, "warmup_num_steps": {recipe.warmup_steps}, '
            '"warmup_type": "linear"'
        )
    return f"""{{
    "type": "{kind}", # {origin}
    "params": {{ {params} }} # warmup: {recipe.why("warmup")}
  }}"""
