"""The recipe of a study of module-wise LRs: each group of tensors has the LR and the weight decay that were found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.units import format_count, format_lr, format_name
from raylr.errors import InputError, nearest
from raylr.recipes.recipe import Group, Recipe, Wishes, make_recipe, pattern_of
from raylr.spec.batches import conditions_of
from raylr.spec.runs import placed
from raylr.trainables.models.architecture import shapes_of
from raylr.trainables.models.roles import MODULE_OF, NORMS, role_of
from raylr.trainables.models.spec import ModelSpec
from raylr.trainables.training.groups import multipliers_by_role
from raylr.trainables.training.spec import TrainSpec

if TYPE_CHECKING:
    from raylr.module_study import ModulesResult, SizeModules

NO_GROUPS = {
    "deepspeed": "DeepSpeed's configuration has one LR; with --for torch it gets groups, by deepspeed.initialize("
    "optimizer=optimizer(model))",
    "hf": "TrainingArguments have one LR; with --for torch Trainer gets groups, by optimizers=(optimizer(model), "
    "LambdaLR(…, lr_factor))",
    "axolotl": "the recipe for axolotl has one LR for all tensors",
    "nanotron": "nanotron's configuration has one LR for all tensors",
    "torchtitan": "torchtitan calls tensors by names of its own, which raylr does not know: copy the LRs of --for "
    "torch into ParamGroupConfig by hand",
}
"""Why a trainer gets no recipe of groups."""
DECOUPLED = ("embedding", "lm_head")
"""Modules that Megatron-LM's `--decoupled-lr` is for."""


def module_recipe(result: ModulesResult, size: str | None, wishes: Wishes, trainer: str) -> Recipe:
    """Return the recipe of what was found at a size of the study.

    Args:
        result: What the study found.
        size: Name of the size; None for the only one.
        wishes: What the user says; the batch and the weight decay are the study's.
        trainer: The trainer that it is for, a key of `raylr.recipes.targets.TARGETS`.

    Raises:
        InputError: If there is no such size, nothing was found there, or the trainer cannot have such groups.
    """
    by_name = {one.size: one for one in result.sizes}
    if size is None and len(by_name) > 1:
        raise InputError(f"which size? Give --target with one of {', '.join(by_name)}")
    if size is not None and size not in by_name:
        raise InputError(f"--target: there is no size {size!r}{nearest(size, by_name)}")
    one, spec = by_name[size] if size is not None else result.sizes[0], result.spec
    if trainer in NO_GROUPS:
        raise InputError(f"--for {trainer}: {NO_GROUPS[trainer]}")
    if not math.isfinite(one.lr):
        raise InputError(f"no global LR is known at {format_name(one.size)}: let the study end first")
    model = spec.models()[one.size]
    if not isinstance(model, ModelSpec):
        found = ", ".join(f"{name} × {value:.3g}" for name, value in one.values.items())
        raise InputError(
            f"{one.size} is not a model of raylr's own, whose tensors have known names; set the LR {format_lr(one.lr)} "
            f"times {found} by hand"
        )
    for what, given in (("--batch", wishes.batch), ("--weight-decay", wishes.weight_decay)):
        if given is not None:
            raise InputError(f"{what} is the study's: the LRs were found with it")
    train = next(setting.train for setting in spec.settings() if setting.size == one.size)
    model, train, _ = placed(spec, model, train, one.values)
    assert isinstance(model, ModelSpec)
    assert isinstance(train, TrainSpec)
    law = LRLaw(c=one.lr / 1e-4, alpha=0.0, beta=0.0, conditions=conditions_of(train, spec.objective))
    prediction = law.predict(one.params, one.tokens, batch=one.batch)
    made = make_recipe(law, prediction, replace(wishes, batch=one.batch))
    made = replace(
        made, notes=_notes(result, one), groups=_groups(model, train, one.lr, made.eps),
        origin={**made.origin, "lr": "global LR of the study", "batch": "as in the study's spec"},
    )  # fmt: skip
    return _decoupled(made, one.size) if trainer == "megatron" else made


def _groups(model: ModelSpec, train: TrainSpec, lr: float, eps: float) -> tuple[Group, ...]:
    """Tensors of equal hyperparameters together; numbers of layers and experts become patterns."""
    roles = {
        name: role_of(name, len(shape))
        for name, shape in shapes_of(model).items()
        if not (model.tied_embeddings and "lm_head" in name)
    }
    factors = multipliers_by_role(set(roles.values()), train)
    members: dict[tuple[float, float, float], dict[str, str]] = {}
    for name, role in roles.items():
        one = factors[role]
        decay = 0.0 if role in NORMS else train.weight_decay * one.weight_decay
        members.setdefault((lr * one.lr, decay, eps * one.eps), {})[pattern_of(name)] = role
    return tuple(
        Group(
            roles=", ".join(dict.fromkeys(MODULE_OF[role] for role in found.values())), patterns=tuple(sorted(found)),
            init_std=None, lr=rate, weight_decay=decay, eps=epsilon, multiplier=1.0,
        )
        for (rate, decay, epsilon), found in members.items()
    )  # fmt: skip


def _decoupled(made: Recipe, size: str) -> Recipe:
    """Megatron-LM has two LRs: that of the embedding with the output layer, and that of all else."""
    of = {module: group.lr for group in made.groups for module in group.roles.split(", ")}
    ends, others = ({lr for module, lr in of.items() if (module in DECOUPLED) == end} for end in (True, False))
    decays = {group.weight_decay for group in made.groups if group.weight_decay}
    if len(ends) > 1 or len(others) > 1 or len(decays) > 1:
        found = ", ".join(f"{module} {format_lr(lr)}" for module, lr in of.items())
        raise InputError(
            f"--for megatron: Megatron-LM has one LR for the embedding and the output layer (--decoupled-lr) and one "
            f"for all else, and {size} has {found}: use --for torch"
        )
    (lr,), (end,) = others, ends
    return replace(made, lr=lr, min_lr=made.min_lr * lr / made.lr, decoupled_lr=end if end != lr else None)


def _notes(result: ModulesResult, one: SizeModules) -> tuple[str, ...]:
    from raylr.report.modules import verdict_text

    found = ", ".join(f"{name} × {value:.3g}" for name, value in one.values.items())
    notes = [
        f"module-wise LRs by raylr for {one.size}: {format_count(one.params)} parameters, {format_count(one.tokens)} "
        f"tokens, batch {format_count(one.batch)} tokens",
        f"global LR {format_lr(one.lr)}; {found}",
        verdict_text(result, one),
        "found at this size and this many tokens; no law carries them to others",
        "DeepSpeed takes the groups by deepspeed.initialize(optimizer=optimizer(model)), Hugging Face's Trainer by "
        "optimizers=(optimizer(model), LambdaLR(…, lr_factor))",
    ]
    return tuple(" ".join(note.split()) for note in notes)
