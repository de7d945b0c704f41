"""Megatron-LM: arguments of pretrain_gpt.py as a Bash array."""

from __future__ import annotations

from raylr.analysis.units import format_lr
from raylr.recipes.recipe import Recipe

STYLES = {"constant": "constant", "wsd": "WSD", "cosine": "cosine", "linear": "linear"}


def _decoupled(recipe: Recipe) -> list[tuple[str, object, str]]:
    if recipe.decoupled_lr is None:
        return []
    least = recipe.decoupled_lr * recipe.min_lr / recipe.lr
    return [
        ("decoupled-lr", format_lr(recipe.decoupled_lr), "of the embedding and the output layer, as found"),
        ("decoupled-min-lr", format_lr(least), ""),
    ]


def write(recipe: Recipe) -> str:
    """Return the fragment. Batches are in sequences; a WSD decay is exponential unless its style is given."""
    arguments: list[tuple[str, object, str]] = [
        ("optimizer", "adam", "AdamW: weight decay is decoupled"),
        ("lr", format_lr(recipe.lr), recipe.why("lr")),
        *_decoupled(recipe),
        ("min-lr", format_lr(recipe.min_lr), "at the end of the decay"),
        ("lr-decay-style", STYLES[recipe.schedule], recipe.why("schedule")),
        ("lr-decay-iters", recipe.steps, "the whole run"),
        ("lr-warmup-iters", recipe.warmup_steps, recipe.why("warmup")),
    ]
    if recipe.schedule == "wsd":
        arguments += [
            ("lr-wsd-decay-style", "linear", ""),
            ("lr-wsd-decay-iters", recipe.decay_steps, "the last part of the run"),
        ]
    arguments += [
        ("train-iters", recipe.steps, "tokens / batch"),
        ("global-batch-size", recipe.batch, f"sequences; {recipe.why('batch')}"),
        ("micro-batch-size", recipe.micro_batch, "sequences a rank at once"),
        ("seq-length", recipe.seq_len, recipe.why("seq_len")),
        ("weight-decay", f"{recipe.weight_decay:g}", recipe.why("weight_decay")),
        ("adam-beta1", f"{recipe.beta1:g}", recipe.why("beta1")),
        ("adam-beta2", f"{recipe.beta2:g}", recipe.why("beta2")),
        ("adam-eps", f"{recipe.eps:g}", ""),
        ("clip-grad", f"{recipe.clip:g}", ""),
    ]
    lines = [f"    --{name} {value}" + (f"  # {why}" if why else "") for name, value, why in arguments]
    resume = "# resuming a run with another LR needs --override-opt-param-scheduler\n"
    return recipe.comments() + resume + "RAYLR_ARGS=(\n" + "\n".join(lines) + "\n)\n"
