from dataclasses import replace

import pytest
import torch
from made_modules import spec_of, study_of

from raylr.errors import InputError
from raylr.recipes.megatron import write as write_megatron
from raylr.recipes.module_wise import NO_GROUPS, module_recipe
from raylr.recipes.pytorch import write
from raylr.recipes.recipe import Wishes
from raylr.trainables.models.build import build
from raylr.trainables.models.roles import MODULE_OF, NORMS, role_of


@pytest.fixture(scope="module")
def found(corpus, tmp_path_factory):
    return study_of(spec_of(corpus), tmp_path_factory.mktemp("modules") / "study").run()


def test_the_groups_of_a_recipe_are_what_was_found(found):
    (one,) = found.sizes
    module: dict = {}
    recipe = module_recipe(found, None, Wishes(), "torch")
    exec(compile(write(recipe), "recipe.py", "exec"), module)
    model = build(found.spec.models()["S"], seed=0)
    optimizer = module["optimizer"](model)
    names = {id(param): name for name, param in model.named_parameters()}
    groups = {"lm_head": "lm_head", "embedding": "embedding", "router": "router", "experts": "router"}
    seen = set()
    for group in optimizer.param_groups:
        for param in group["params"]:
            role = role_of(names[id(param)], param.dim())
            factor = one.values[groups.get(MODULE_OF[role], "hidden")]
            assert group["lr"] == pytest.approx(one.lr * factor, rel=5e-4), names[id(param)]
            assert group["weight_decay"] == (0.0 if role in NORMS else found.spec.train.weight_decay)
            seen.add(role)
    assert {"lm_head", "router", "experts_in", "attention", "embedding"} <= seen
    assert isinstance(optimizer, torch.optim.AdamW)
    text = "\n".join(recipe.notes)
    assert "with probability" in text
    assert "no law carries them" in text


@pytest.mark.parametrize("trainer", sorted(NO_GROUPS))
def test_a_trainer_without_groups_is_named_with_what_to_do(found, trainer):
    with pytest.raises(InputError, match=f"--for {trainer}: "):
        module_recipe(found, None, Wishes(), trainer)


def test_megatron_has_one_lr_for_both_ends_and_one_for_all_else(found):
    with pytest.raises(InputError, match=r"one for all else, and S has .*lm_head .*use --for torch"):
        module_recipe(found, None, Wishes(), "megatron")
    (one,) = found.sizes
    equal = dict.fromkeys(one.values, 1.0)
    for ends in (2.0, 1.0):
        made = replace(found, sizes=[replace(one, values=equal | {"lm_head": ends, "embedding": ends})])
        text = write_megatron(module_recipe(made, "S", Wishes(), "megatron"))
        assert ("--decoupled-lr" in text) == (ends != 1)


def test_what_a_study_has_decided_is_not_wished_for(found):
    for size, wishes, words in (
        ("L", Wishes(), "no size 'L'"),
        (None, Wishes(batch=1024), "--batch is the study's"),
        (None, Wishes(weight_decay=0.2), "--weight-decay is the study's"),
    ):
        with pytest.raises(InputError, match=words):
            module_recipe(found, size, wishes, "torch")
