import pytest
import torch

from raylr.errors import InputError
from raylr.recipes.pytorch import write
from raylr.recipes.recipe import Wishes
from raylr.recipes.transferred import transferred_recipe
from raylr.trainables import parametrize
from raylr.trainables.models.build import build


@pytest.mark.parametrize("name", ["wide", "deep"])
def test_a_recipes_module_gives_the_groups_of_parametrize(carried, name):
    result = carried[1]
    recipe = transferred_recipe(result, name, Wishes())
    module: dict = {}
    exec(compile(write(recipe), "recipe.py", "exec"), module)
    target = next(one.target for one in result.targets if one.target.name == name)
    spec, search = result.spec, result.search
    model = build(spec.target_model(target), seed=0)
    optimizer = module["optimizer"](model)
    tokens = spec.tokens_of(target) / search.tokens
    other = build(spec.target_model(target), seed=0)
    expected = parametrize(
        other, base=spec.models()["proxy"], lr=search.lr, weight_decay=spec.train.weight_decay, token_ratio=tokens
    )

    def by_name(network, groups):
        names = {id(param): key for key, param in network.named_parameters()}
        return {names[id(p)]: (g["lr"], g["weight_decay"], g["eps"]) for g in groups for p in g["params"]}

    found, wanted = by_name(model, optimizer.param_groups), by_name(other, expected)
    assert found.keys() == wanted.keys()
    for key, values in found.items():
        assert values == pytest.approx(wanted[key], rel=5e-4)  # written in four digits
    module["initialise"](model, torch.Generator().manual_seed(0))
    std = float(dict(model.named_parameters())["model.embed_tokens.weight"].detach().std())
    assert std == pytest.approx(search.axes["init_std"], rel=0.1)
    assert module["lr_factor"](0) < module["lr_factor"](10**6) == 1.0
    text = "\n".join(recipe.notes)
    assert ("residual stream by 0.25" in text) == (name == "deep")
    assert "carried by completed_p from proxy" in text
    with pytest.raises(ValueError, match="belongs to 0 groups"):
        module["group_of"]("layers.0.attention.wq.weight")


def test_what_cannot_be_written_is_said(carried):
    result = carried[1]
    for target, wishes, words in (
        (None, Wishes(), "which target"),
        ("wider", Wishes(), "no target 'wider'"),
        ("wide", Wishes(batch=1e6), "change it there"),
    ):
        with pytest.raises(InputError, match=words):
            transferred_recipe(result, target, wishes)
