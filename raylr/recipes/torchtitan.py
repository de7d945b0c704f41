"""torchtitan: a Python function that changes a `Trainer.Config` (0.3; there is no TOML any more)."""

from __future__ import annotations

from raylr.analysis.units import format_lr
from raylr.recipes.recipe import Recipe


def write(recipe: Recipe) -> str:
    """Return the fragment. Without a decay ratio torchtitan decays at once; a ratio of the rest is a WSD schedule."""
    ratio = {"wsd": f"{recipe.decay_steps / recipe.steps:.4g}", "constant": "0.0"}.get(recipe.schedule, "None")
    kind = "cosine" if recipe.schedule == "cosine" else "linear"
    return (
        recipe.comments()
        + f'''from torchtitan.components.optimizer import LRSchedulersContainer, ParamGroupConfig


def with_raylr(config):
    """Return a Trainer.Config with the LR and what belongs to it."""
    config.optimizer.param_groups = [
        ParamGroupConfig(
            pattern=r".*",  # one LR for all parameters
            optimizer_name="AdamW",
            optimizer_kwargs={{
                "lr": {format_lr(recipe.lr)},  # {recipe.why("lr")}
                "betas": ({recipe.beta1:g}, {recipe.beta2:g}),  # {recipe.why("beta1")}; {recipe.why("beta2")}
                "eps": {recipe.eps:g},
                "weight_decay": {recipe.weight_decay:g},  # {recipe.why("weight_decay")}
            }},
        )
    ]
    config.lr_scheduler = LRSchedulersContainer.Config(
        warmup_steps={recipe.warmup_steps},  # {recipe.why("warmup")}
        total_steps={recipe.steps},
        decay_ratio={ratio},  # {recipe.schedule}, {recipe.why("schedule")}
        decay_type="{kind}",
        min_lr_factor={recipe.min_lr / recipe.lr:.4g},
    )
    config.training.steps = {recipe.steps}  # tokens / batch
    config.training.global_batch_size = {recipe.batch}  # sequences; {recipe.why("batch")}
    config.training.local_batch_size = {recipe.micro_batch}
    config.training.seq_len = {recipe.seq_len}  # {recipe.why("seq_len")}
    config.training.max_norm = {recipe.clip:g}
    # later than 0.3: training.num_tokens_per_train_step = {recipe.batch_tokens}, max_context_length = {recipe.seq_len}
    return config
'''
    )
