"""The recipe of a transfer study's target: each group of tensors has hyperparameters of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.units import format_count, format_lr
from raylr.errors import InputError, nearest
from raylr.recipes.recipe import Group, Recipe, Wishes, make_recipe, pattern_of
from raylr.spec.batches import conditions_of
from raylr.trainables.models.parametrization import SYMBOLS

if TYPE_CHECKING:
    from raylr.trainables.models.settings import RoleSettings
    from raylr.transfer_study import Transferred, TransferResult


def transferred_recipe(result: TransferResult, target: str | None, wishes: Wishes) -> Recipe:
    """Return the recipe of a target.

    Args:
        result: What the study found.
        target: Name of the target; None for the only one.
        wishes: What the user says; the batch and the weight decay are the study's.

    Raises:
        InputError: If there is no such target, or the study found no hyperparameters for it.
    """
    by_name = {one.target.name: one for one in result.targets}
    if target is None and len(by_name) > 1:
        raise InputError(f"which target? Give --target with one of {', '.join(by_name)}")
    if target is not None and target not in by_name:
        raise InputError(f"--target: there is no target {target!r}{nearest(target, by_name)}")
    one = by_name[target] if target is not None else result.targets[0]
    name = one.target.name
    if not result.search.known:
        raise InputError(f"there is nothing to carry to {name}: {result.search.fit.message}")
    if not one.settings:
        raise InputError(f"{name} is another trainer's model, whose tensors raylr does not know; give that trainer the "
                         f"LR {format_lr(one.prediction.lr)} of the proxy and the ratios of {name}")  # fmt: skip
    if wishes.batch is not None or wishes.weight_decay is not None:
        what = "--batch" if wishes.batch is not None else "--weight-decay"
        raise InputError(f"{what} is {name}'s in the study's spec: change it there, since the rule depends on it")
    conditions = conditions_of(result.spec.target_train(one.target), result.spec.objective)
    law = LRLaw(c=one.prediction.lr / 1e-4, alpha=0.0, beta=0.0, conditions=conditions)
    made = make_recipe(law, one.prediction, wishes)
    assert result.spec.transfer is not None
    betas = result.spec.transfer.table().betas((made.beta1, made.beta2), one.ratios)
    return replace(
        made, beta1=betas[0], beta2=betas[1], notes=_notes(result, one),
        origin={**made.origin, "lr": "transferred", "batch": "as in the study's spec"},
        groups=tuple(_group(setting) for setting in one.settings),
    )  # fmt: skip


def _group(setting: RoleSettings) -> Group:
    """The group of tensors of equal settings; numbers of layers and experts become patterns."""
    patterns = {pattern_of(name) for name in setting.tensors}
    return Group(
        roles=", ".join(setting.roles), patterns=tuple(sorted(patterns)), init_std=setting.init_std, lr=setting.lr,
        weight_decay=setting.weight_decay, eps=setting.eps, multiplier=setting.forward * setting.residual,
    )  # fmt: skip


def _notes(result: TransferResult, one: Transferred) -> tuple[str, ...]:
    assert result.spec.transfer is not None
    prediction, search, rule = one.prediction, result.search, result.spec.transfer.table()
    place = f"{format_count(prediction.params)} parameters, {format_count(prediction.tokens)} tokens"
    ratios = ", ".join(f"{SYMBOLS[axis]} = {ratio:.4g}" for axis, ratio in one.ratios.items())
    span = f"{format_lr(prediction.lr_low)} to {format_lr(prediction.lr_high)}"
    notes = [
        f"hyperparameters by raylr for {one.target.name}: {place}",
        f"carried by {rule.name} from {search.size} ({format_count(search.params)} parameters, "
        f"{format_count(search.tokens)} tokens): {ratios}",
        f"LR of the proxy {format_lr(search.lr)}, 90 % interval for this target {span}; its init std "
        f"{format_lr(search.axes['init_std'])}",
        search.basin.message,
        *(f"the interval holds {spread.what} (sd {spread.sd:.2f} in ln LR)" for spread in one.spreads),
        *(f"not covered by the rule: {change.what}: {change.note}" for change in one.differences),
    ]
    blocks = {setting.residual for setting in one.settings if setting.residual != 1.0}
    notes += [f"multiply what every attention and MLP block adds to the residual stream by {f:.6g}" for f in blocks]
    for setting in one.settings:
        if setting.forward != 1.0:
            notes.append(f"multiply the output of {', '.join(setting.tensors)} by {setting.forward:.6g}")
    return tuple(" ".join(note.split()) for note in notes)
