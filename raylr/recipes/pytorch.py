"""Any training script of PyTorch: a Python module with the parameter groups of AdamW and the LR's schedule."""

from __future__ import annotations

from raylr.recipes.recipe import Group, Recipe

HEAD = """import re

import torch

GROUPS = [  # (what, patterns of whole names, init std, peak LR, weight decay, eps)
"""
BODY = '''

def group_of(name):
    """Return the number of a parameter's group."""
    found = [i for i, group in enumerate(GROUPS) if any(re.fullmatch(pattern, name) for pattern in group[1])]
    if len(found) != 1:
        raise ValueError(f"{{name}} belongs to {{len(found)}} groups of this recipe: is this the model it is for?")
    return found[0]


def initialise(model, generator=None):
    """Draw the initial weights; norms and biases stay as they are."""
    with torch.no_grad():
        for name, param in model.named_parameters():
            if (std := GROUPS[group_of(name)][2]) is not None:
                param.normal_(0.0, std, generator=generator)


def optimizer(model):
    """Return AdamW with the groups."""
    groups = [{{"params": [], "lr": lr, "weight_decay": decay, "eps": eps}} for *_, lr, decay, eps in GROUPS]
    for name, param in model.named_parameters():
        groups[group_of(name)]["params"].append(param)
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=({beta1:g}, {beta2:g}))


def lr_factor(step):
    """Return the factor on every group's LR, for torch.optim.lr_scheduler.LambdaLR."""
    if step < {warmup}:
        return (step + 1) / {warmup}
    return {shape}


MOST_GRADIENT_NORM = {clip:g}  # largest global norm
STEPS = {steps}  # tokens / batch
BATCH = {batch}  # sequences of {seq_len} tokens; {batch_why}
'''


def write(recipe: Recipe) -> str:
    """Return the module."""
    groups = recipe.groups or (
        Group(
            roles="all", patterns=(".*",), init_std=None, lr=recipe.lr, weight_decay=recipe.weight_decay,
            eps=recipe.eps, multiplier=1.0,
        ),
    )  # fmt: skip
    lines = []
    for group in groups:
        std = None if group.init_std is None else float(f"{group.init_std:.4g}")
        lines.append(f"    ({group.roles!r}, {list(group.patterns)!r}, {std}, {group.lr:.4g}, "
                     f"{group.weight_decay:.4g}, {group.eps:.4g}),\n")  # fmt: skip
    decay, end = recipe.decay_steps, recipe.min_lr / recipe.lr
    left = f"min(1.0, ({recipe.steps} - step) / {max(decay, 1)})"
    shape = f"{end:.4g} + (1 - {end:.4g}) * {left}" if decay else "1.0"
    if recipe.schedule == "cosine" and decay:
        angle = f"torch.pi * (1 - {left})"
        shape = f"{end:.4g} + (1 - {end:.4g}) * 0.5 * (1 + float(torch.cos(torch.tensor({angle}))))"
    return (
        recipe.comments()
        + HEAD
        + "".join(lines)
        + "]\n"
        + BODY.format(
            beta1=recipe.beta1,
            beta2=recipe.beta2,
            warmup=recipe.warmup_steps,
            shape=shape,
            clip=recipe.clip,
            steps=recipe.steps,
            batch=recipe.batch,
            seq_len=recipe.seq_len,
            batch_why=recipe.why("batch"),
        )
    )
