import copy
import math

import pytest
import torch
from torch import nn

from raylr.errors import SpecError
from raylr.trainables import ModelSpec, parametrize
from raylr.trainables.models.architecture import Architecture, Pattern
from raylr.trainables.models.build import build
from raylr.trainables.models.parametrization import parametrization
from raylr.trainables.models.transfer import network_of, transfer


def spec(width=32, **options):
    fields = {"hidden_size": width, "layers": 2, "heads": width // 16, "kv_heads": width // 32, "head_dim": 16,
              "experts": 4, "top_k": 2, "expert_size": width, "vocab_size": 64}  # fmt: skip
    return ModelSpec(**fields | options)


def test_groups_and_weights_are_those_of_the_table():
    base, target = spec(32), spec(64, layers=4)
    model = build(target, seed=0)
    before = {name: param.clone() for name, param in model.named_parameters()}
    groups = parametrize(model, base=base, lr=4e-3, weight_decay=0.1, eps=1e-8, token_ratio=4.0)
    group_of = {id(param): group for group in groups for param in group["params"]}
    names = dict(model.named_parameters())
    assert len(group_of) == len(names) == sum(len(group["params"]) for group in groups)
    assert len(groups) == 6  # of 63 tensors: embedding, matrices, head, three kinds of norm
    large = network_of(target, tokens=4.0)
    for one in transfer(network_of(base, tokens=1.0), large, parametrization("completed_p")).tensors:
        group = group_of[id(names[one.name])]
        assert group["lr"] == pytest.approx(4e-3 * one.factors["lr"])
        assert group["eps"] == pytest.approx(1e-8 * one.factors["eps"])
        decay = 0.0 if "norm" in one.name else 0.1 * one.factors["weight_decay"]
        assert group["weight_decay"] == pytest.approx(decay)
        torch.testing.assert_close(names[one.name], before[one.name] * math.sqrt(one.factors["init_variance"]))
    assert [layer.multiplier for layer in model.model.layers] == [0.5] * 4
    assert model.spec.residual_multiplier == 0.5
    torch.optim.AdamW(groups)  # takes them
    with pytest.raises(SpecError, match="parametrized before"):
        parametrize(model, base=base, lr=4e-3)


def steps(model, groups, count=4):
    optimizer, generator = torch.optim.AdamW(groups), torch.Generator().manual_seed(1)
    losses = []
    for _ in range(count):
        ids = torch.randint(64, (2, 17), generator=generator)
        loss = model(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.cross_entropy.detach()))
    return losses


@pytest.mark.parametrize("head", ["variance", "multiplier"])
def test_folded_multipliers_train_as_placed_ones(head):
    """The residual multiplier in the layers, or in the last matrices; the head's in its init and LR, or folded."""
    losses = []
    folded = parametrization("completed_p", head=head)
    for rule, multipliers in ((parametrization("completed_p"), "place"), (folded, "fold")):
        model = build(spec(64, layers=4), seed=0)
        groups = parametrize(model, base=spec(32), rule=rule, lr=1e-2, eps=1e-4, multipliers=multipliers)
        losses.append(steps(model, groups))
    assert losses[0] == pytest.approx(losses[1], rel=2e-6)
    assert losses[0][-1] != pytest.approx(losses[0][0], rel=1e-3)  # it trains


def test_a_transfer_to_itself_changes_nothing():
    one, other = build(spec(), seed=0), build(spec(), seed=0)
    groups = parametrize(one, base=spec(), lr=1e-2)
    plain = [
        {"params": [p for p in other.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in other.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    assert len(groups) == 2
    assert steps(one, groups) == steps(other, [group | {"lr": 1e-2, "betas": (0.9, 0.95)} for group in plain])


def test_what_does_not_fit_is_an_error():
    deep = build(spec(64, layers=4), seed=0)
    with pytest.raises(SpecError, match=r"output of lm_head\.weight by 0\.5, and the model has no place"):
        parametrize(deep, base=spec(32), rule="completep", lr=1e-2)
    assert deep.model.layers[0].multiplier == 1.0  # a model that is refused is as it was
    assert float(deep.lm_head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    with pytest.raises(SpecError, match=r"target has model\.embed_tokens.weight with shape"):
        parametrize(build(spec(64), seed=0), base=spec(32), target=spec(96), lr=1e-2)
    with pytest.raises(SpecError, match="are one tensor"):
        parametrize(build(spec(64, tied_embeddings=True), seed=0), base=spec(32), lr=1e-2)
    with pytest.raises(SpecError, match=r"residual_multiplier is 1 in the base and 0\.5 in the model"):
        parametrize(build(spec(64, residual_multiplier=0.5), seed=0), base=spec(32), lr=1e-2)
    small, large = network_of(spec(32), tokens=1e6), network_of(spec(64), tokens=4e6)
    with pytest.raises(SpecError, match="ratio of tokens is given as 2, and base and target state 4"):
        parametrize(build(spec(64), seed=0), base=small, target=large, token_ratio=2.0, lr=1e-2)
    with pytest.raises(SpecError, match="lr=0 must be"):
        parametrize(build(spec(64), seed=0), base=small, lr=0)


MLP = Architecture(
    name="mlp",
    patterns=(
        Pattern(regex=r"^first\.", role="embedding"),
        Pattern(regex=r"^middle\.weight", role="hidden"),
        Pattern(regex=r"^middle\.bias", role="hidden_biases"),
        Pattern(regex=r"^last\.weight", role="lm_head"),
    ),
)


class Net(nn.Module):
    """A small MLP with PyTorch's own initialisation; `readout` makes its output layer."""

    def __init__(self, width, readout=nn.Linear):
        super().__init__()
        self.first, self.middle = nn.Linear(8, width), nn.Linear(width, width)
        self.last = readout(width, 3, bias=False)

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


def test_pytorchs_own_initialisation_needs_less_scaling():
    model = Net(64)
    before = copy.deepcopy(model)
    parametrize(model, base=Net(16), rule="mup", lr=1e-2, architecture=MLP, initialised="fan_in")
    torch.testing.assert_close(model.middle.weight, before.middle.weight)
    torch.testing.assert_close(model.first.weight, before.first.weight)
    torch.testing.assert_close(model.middle.bias, before.middle.bias * 2)  # PyTorch's ∝ 1/√fan-in, μP's constant
    torch.testing.assert_close(model.last.weight, before.last.weight / 2)
