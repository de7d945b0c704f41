import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from raylr.analysis.coordinates import Verdict
from raylr.errors import InputError, SpecError
from raylr.trainables import CheckSettings, ModelSpec, Subject, coordinate_check, parametrize
from raylr.trainables.models.architecture import Architecture, Pattern
from raylr.trainables.models.parametrization import HIDDEN, ROUTERS, Term, parametrization

BASE = ModelSpec(hidden_size=16, layers=2, heads=2, kv_heads=1, head_dim=8, experts=4, top_k=2, expert_size=16,
                 vocab_size=64)  # fmt: skip
SETTINGS = CheckSettings(lr=2e-3, steps=(1, 8), seeds=(0,), sequences=2)
RIGHT = parametrization("completed_p")
WEIGHTS = (*HIDDEN, *ROUTERS)


class Memory(dict):
    """Results of a check, and how many runs were measured."""

    def put(self, run, rows):
        assert run not in self
        self[run] = rows


@pytest.fixture(scope="module")
def memory():
    return Memory()


def changed(quantity, roles, axis, exponent, rule=RIGHT):
    """The rule with another exponent for some roles."""
    terms = [
        replace(term, roles=tuple(role for role in term.roles if role not in roles))
        if (term.quantity, term.axis) == (quantity, axis)
        else term
        for term in rule.terms
    ]
    terms.append(Term(quantity=quantity, roles=tuple(roles), axis=axis, exponent=exponent, source="broken"))
    return replace(rule, name="broken", terms=tuple(term for term in terms if term.roles and term.exponent))


def check(rule, memory, axis="width", **options):
    scales = (1, 2, 8) if axis == "width" else (1, 2, 4)
    options = {"settings": SETTINGS, "results": memory} | options
    return coordinate_check(BASE, rule=rule, axis=axis, scales=scales, **options)


@pytest.mark.slow
@pytest.mark.parametrize("heads", ["scaled", "fixed"])
def test_the_right_rule_raises_no_alarm(memory, heads):
    found = check(RIGHT, memory, heads=heads)
    assert not found.deviating()
    observed = {(row.observable, row.layer) for row in found.rows}
    names = ("attention_logits", "attention_logits_normed", "attention_outputs", "router_logits", "mlp_outputs",
             "layer_outputs")  # fmt: skip
    assert observed == {(name, layer) for name in names for layer in ("first", "last")} | {
        ("embeddings", ""), ("residual_stream", "last"), ("logits", "")
    }  # fmt: skip
    assert {row.step for row in found.rows} == {0, 1, 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axis", "rule", "observable", "verdict"),
    [
        ("width", changed("init_variance", ["embedding"], "width", -1), "embeddings", Verdict.VANISHES),
        ("width", changed("init_variance", WEIGHTS, "width", 0), "attention_logits", Verdict.GROWS),
        ("width", changed("init_variance", ["lm_head"], "width", -1), "logits", Verdict.GROWS),  # std for variance
        ("width", changed("lr", ["embedding"], "width", -1), "embeddings", Verdict.VANISHES),
        ("width", changed("lr", WEIGHTS, "width", 0), "mlp_outputs", Verdict.GROWS),
        ("width", changed("lr", ["lm_head"], "width", 0), "logits", Verdict.GROWS),
        (
            "width",
            changed("lr", ROUTERS, "width", 0, parametrization("completed_p", router="output")),  # the trap
            "router_logits",
            Verdict.GROWS,
        ),
        ("depth", parametrization("mup"), "mlp_outputs", Verdict.GROWS),  # no residual multiplier
    ],
)
def test_each_broken_rule_is_caught_where_it_is_broken(memory, axis, rule, observable, verdict):
    more = {"settings": replace(SETTINGS, seeds=(0, 1))} if axis == "depth" else {}  # one seed hides a slope over depth
    found = check(rule, memory, axis, **more)
    assert verdict in {row.verdict for row in found.rows if row.observable == observable}
    assert found.verdict in (Verdict.GROWS, Verdict.VANISHES)


def test_measurements_are_kept_and_the_base_is_measured_once_for_all_rules():
    memory = Memory()
    few = replace(SETTINGS, steps=(1,), sequences=1, seq_len=8)
    first = coordinate_check(BASE, scales=(1, 2, 3), settings=few, results=memory)
    assert len(memory) == 3
    done = []
    again = coordinate_check(
        BASE, scales=(1, 2, 3), settings=few, results=memory, progress=lambda *seen: done.append(seen)
    )
    assert again == first
    assert done[-1] == (3, 3)
    coordinate_check(BASE, rule="standard", scales=(1, 2, 3), settings=few, results=memory)
    assert len(memory) == 5  # the base is the same under every rule
    coordinate_check(BASE, axis="tokens", scales=(1, 2, 4), settings=few, results=memory)
    assert len(memory) == 7
    coordinate_check(BASE, scales=(1, 2, 3), settings=replace(few, lr=1e-3), results=memory)
    assert len(memory) == 10  # another LR: nothing is known


def test_over_tokens_the_first_changes_show_the_lrs_exponent():
    small = CheckSettings(steps=(1,), seeds=(0,), sequences=1, seq_len=8, lr=1e-4)
    for rule, exponent in ((RIGHT, -0.5), ("standard", 0.0)):
        found = coordinate_check(BASE, rule=rule, axis="tokens", scales=(1, 2, 4), settings=small)
        assert found.verdict is Verdict.AS_EXPECTED
        slopes = {row.observable: row.found.slope for row in found.rows}
        assert slopes["embeddings"] == pytest.approx(exponent, abs=0.02)
        assert slopes["attention_outputs"] == pytest.approx(exponent, abs=0.1)
        assert {row.step for row in found.rows} == {1}


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
    """A small MLP with PyTorch's own initialisation."""

    def __init__(self, width):
        super().__init__()
        self.first, self.middle = nn.Linear(8, width), nn.Linear(width, width)
        self.last = nn.Linear(width, 3, bias=False)

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


def regression(width, depth, seed, groups=None):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(32, 8, generator=generator), torch.randn(32, 3, generator=generator)
    model = Net(int(32 * width))
    return Subject(
        model=model, forward=lambda net: net(x), loss=lambda net: (net(x) - y).square().mean(),
        groups=groups(model) if groups else None,
    )  # fmt: skip


OPTIONS = {"architecture": MLP, "scales": (1, 2, 4, 8),
           "settings": CheckSettings(initialised="fan_in", steps=(1, 8), seeds=(0, 1), lr=2e-3)}  # fmt: skip


def test_any_module_is_checked_by_the_roles_of_its_tensors():
    right = coordinate_check(regression, rule="mup", **OPTIONS)
    assert right.verdict is Verdict.AS_EXPECTED
    assert [row.name for row in right.rows if row.step == 0] == [
        "word embeddings",
        "hidden layer, middle",
        "output logits",
    ]
    wrong = coordinate_check(regression, rule="standard", **OPTIONS)
    assert wrong.verdict is Verdict.GROWS
    assert {row.observable for row in wrong.deviating()} == {"hidden", "logits"}


def test_a_parametrization_by_other_code_is_checked_too():
    def own(model):
        groups = parametrize(model, base=Net(32), rule="mup", lr=2e-3, architecture=MLP, initialised="fan_in")
        return [{key: group[key] for key in ("params", "lr", "eps", "weight_decay")} for group in groups]

    def forgotten(model):
        return [{**group, "lr": 2e-3} for group in own(model)]

    for groups, verdict in ((own, Verdict.AS_EXPECTED), (forgotten, Verdict.GROWS)):
        found = coordinate_check(lambda *, groups=groups, **size: regression(**size, groups=groups), **OPTIONS)
        assert found.verdict is verdict


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": (1, 2)}, "at least 3 different numbers"),
        ({"scales": (1, 2, 2, 4)}, "different numbers"),
        ({"scales": (2, 4, 8)}, "have 1 among them"),
        ({"scales": (1, 2, math.inf)}, "above 0"),
        ({"scales": (1, 1.3, 2)}, r"hidden_size=16 × 1\.3 is not a whole number"),
        ({"rule": "mupp"}, "did you mean"),
        ({"rule": replace(RIGHT, optimizer="muon")}, "trains with AdamW"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(InputError, match=words):
        coordinate_check(BASE, settings=SETTINGS, **options)


def test_bad_models_and_settings():
    with pytest.raises(InputError, match="returned int; it must return"):
        coordinate_check(lambda **size: 3, settings=SETTINGS)
    with pytest.raises(
        InputError, match=r"raised TypeError when it was called with width=1, depth=1, seed=0: .*'depth'"
    ):
        coordinate_check(lambda width, seed: nn.Linear(2, 2), settings=SETTINGS)
    with pytest.raises(SpecError, match="are one tensor"):
        coordinate_check(BASE.model_copy(update={"tied_embeddings": True}), settings=SETTINGS)
    for fields, words in (({"lr": 0}, "lr=0"), ({"steps": (0, 1)}, "steps"), ({"seeds": (1, 1)}, "seeds"),
                          ({"seq_len": 1}, "too small")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            CheckSettings(**fields)
