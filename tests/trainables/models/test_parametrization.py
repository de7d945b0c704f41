"""The tables, written out by hand from the publications (not from the module), for every role and quantity."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import SpecError
from raylr.trainables.models.choices import OF_MUON
from raylr.trainables.models.parametrization import (
    AXES,
    CHOICES,
    QUANTITIES,
    ROLES,
    RULES,
    Parametrization,
    Term,
    parametrization,
)

WEIGHTS = ["hidden", "attention_in", "attention_out", "dense_in", "dense_out", "experts_in", "experts_out"]
LAST = ["attention_out", "dense_out", "experts_out"]


def same(roles, row):
    """One row of a table for several roles."""
    return {role: dict(row) for role in roles}


# Zhou et al. (arXiv 2601.05049), Table 10, last column, α = 1: (m_N, m_L, m_D) exponents of each row of the table.
TABLE_10 = {
    "embedding": {"init_variance": (0, 0, 0), "lr": (0, 0, -0.5), "eps": (-1, 0, 0.5), "weight_decay": (0, 0, -0.5)},
    **same(
        [*WEIGHTS, "router", "shared_gate"],  # the table has no row of its own for the router: choice router="hidden"
        {"init_variance": (-1, 0, 0), "lr": (-1, 0, -0.5), "eps": (-1, -1, 0.5), "weight_decay": (1, 0, -0.5)},
    ),
    **same(
        ["hidden_norms", "hidden_biases"],
        {"init_variance": (0, 0, 0), "lr": (0, 0, -0.5), "eps": (-1, -1, 0.5), "weight_decay": (0, 0, -0.5)},
    ),
    "qk_norms": {"init_variance": (0, 0, 0), "lr": (0, 0, -0.5), "eps": (0, -1, 0.5), "weight_decay": (0, 0, -0.5)},
    **same(
        ["final_norm", "head_bias"],
        {"init_variance": (0, 0, 0), "lr": (0, 0, -0.5), "eps": (0, 0, 0.5), "weight_decay": (0, 0, -0.5)},
    ),
    "lm_head": {"init_variance": (-2, 0, 0), "lr": (-1, 0, -0.5), "eps": (0, 0, 0.5), "weight_decay": (1, 0, -0.5)},
}
# CompleteP (arXiv 2505.01618), Table 1, α = 1: the unembedding has a forward multiplier, the embedding's ε stays.
COMPLETEP = {
    "embedding": {},
    **same(
        [*WEIGHTS, "router", "shared_gate"],
        {"init_variance": (-1, 0, 0), "lr": (-1, 0, 0), "eps": (-1, -1, 0), "weight_decay": (1, 0, 0)},
    ),
    **same(["hidden_norms", "hidden_biases"], {"eps": (-1, -1, 0)}),
    "qk_norms": {"eps": (0, -1, 0)},  # not in CompleteP; Complete(d)P's row
    "final_norm": {},
    "head_bias": {},
    "lm_head": {"forward": (-1, 0, 0)},
}
# The μP column of Table 10.
MUP = {
    "embedding": {"eps": (-1, 0, 0)},
    **same(
        [*WEIGHTS, "router", "shared_gate"],
        {"init_variance": (-1, 0, 0), "lr": (-1, 0, 0), "eps": (-1, 0, 0), "weight_decay": (1, 0, 0)},
    ),
    **same(["hidden_norms", "hidden_biases"], {"eps": (-1, 0, 0)}),
    "qk_norms": {},
    "final_norm": {},
    "head_bias": {},
    "lm_head": {"init_variance": (-2, 0, 0), "lr": (-1, 0, 0), "weight_decay": (1, 0, 0)},
}
TABLES = {"completed_p": TABLE_10, "completep": COMPLETEP, "mup": MUP, "standard": {role: {} for role in ROLES}}
PRIMES = {"width": 2.0, "depth": 3.0, "tokens": 5.0, "batch": 7.0}
"""Ratios whose powers are all different, so that a factor tells its exponents."""


def differences_from(table, rule, depth=True):
    """(role, quantity) whose exponents are not those of the table."""
    wrong = []
    for role, row in table.items():
        for quantity in QUANTITIES:
            expected = row.get(quantity, (0, 0, 0))
            if quantity == "residual" and role in LAST and depth:
                expected = (0, -1, 0)
            found = dict.fromkeys(AXES, 0.0) | {term.axis: term.exponent for term in rule.terms_of(quantity, role)}
            factor = math.prod(PRIMES[axis] ** power for axis, power in zip(AXES, expected, strict=False))
            same = rule.factor(quantity, role, PRIMES) == pytest.approx(factor, rel=1e-14)
            if tuple(found.values()) != (*expected, 0) or not same:
                wrong.append((role, quantity))
    return wrong


@pytest.mark.parametrize("name", RULES)
def test_the_published_table_exactly(name):
    assert {*TABLES[name]} == {*ROLES}
    assert differences_from(TABLES[name], parametrization(name), name in ("completep", "completed_p")) == []


ROWS = ["embedding", "hidden", "experts_out", "router", "hidden_norms", "qk_norms", "final_norm", "lm_head"]
"""One role of each row of Table 10, and of what is easily forgotten."""


@pytest.mark.parametrize("quantity", ["init_variance", "lr", "weight_decay", "eps", "residual"])
@pytest.mark.parametrize("axis", ["width", "depth", "tokens"])
def test_each_wrong_exponent_of_table_10_is_seen(quantity, axis):
    """A coordinate check cannot see ε, weight decay, norms' LRs or the tokens; this comparison holds all of them."""
    right = parametrization("completed_p")
    for role in ROWS if quantity != "residual" else LAST:
        terms = [replace(term, roles=tuple({*term.roles} - {role})) if (term.quantity, term.axis) == (quantity, axis)
                 else term for term in right.terms]  # fmt: skip
        now = sum(term.exponent for term in right.terms_of(quantity, role) if term.axis == axis)
        for exponent in {0.0, now - 0.5, now + 0.5, -now} - {now}:
            broken = Term(quantity=quantity, roles=(role,), axis=axis, exponent=exponent, source="broken")
            rule = replace(right, terms=(*(term for term in terms if term.roles), broken))
            assert differences_from(TABLE_10, rule) == [(role, quantity)], exponent


def test_alpha_moves_depth_from_the_residual_multiplier_to_the_lr():
    rule = parametrization("completed_p", alpha=0.5)
    depth = {"depth": 4.0}
    assert rule.factor("residual", "dense_out", depth) == 0.5
    for role in (*WEIGHTS, "router", "hidden_norms", "hidden_biases", "qk_norms"):
        assert rule.factor("lr", role, depth) == 0.5
        assert rule.factor("eps", role, depth) == 0.5
    for role in ("embedding", "final_norm", "lm_head"):
        assert rule.factor("lr", role, depth) == rule.factor("eps", role, depth) == 1


def exponents(rule, role, axis):
    return {quantity: sum(term.exponent for term in rule.terms_of(quantity, role) if term.axis == axis) for quantity in
            QUANTITIES}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("hidden", {"init_variance": -1, "lr": -1, "weight_decay": 1, "eps": -1, "forward": 0}),
        ("output", {"init_variance": -2, "lr": -1, "weight_decay": 1, "eps": -1, "forward": 0}),
        ("logit_multiplier", {"init_variance": 0, "lr": -1, "weight_decay": 1, "eps": -1, "forward": -1}),
        ("plain", {"init_variance": 0, "lr": 0, "weight_decay": 0, "eps": 0, "forward": 0}),
    ],
)
def test_routers(option, expected):
    rule = parametrization("completed_p", router=option)
    assert exponents(rule, "router", "width") == expected | {"residual": 0}
    if option != "plain":  # the trap: an LR that does not fall with width behind no multiplier
        assert expected["lr"] + expected["forward"] < 0


def test_other_disputed_points():
    for option, exponent in (("linear", 1), ("sqrt", 0.5), ("constant", 0)):
        rule = parametrization("mup", hidden_weight_decay=option)
        assert exponents(rule, "experts_in", "width")["weight_decay"] == exponent
        assert exponents(rule, "lm_head", "width")["weight_decay"] == 1
    for option, exponent in (("none", 0), ("half", -0.5), ("bjorck", -0.32), ("zhou", -0.35), ("marin", -0.395)):
        assert exponents(parametrization("mup", token_lr=option), "qk_norms", "tokens")["lr"] == exponent
    whole = parametrization("completed_p", batch="completed_p", betas="completed_p")
    for role in ROLES:
        found = exponents(whole, role, "batch")
        assert (found["lr"], found["weight_decay"], found["eps"]) == (0.5, 0.5, -0.5)
    assert whole.betas((0.9, 0.95), {"batch": 4.0, "tokens": 8.0}) == pytest.approx((0.95, 0.975))
    with pytest.raises(SpecError, match="leaves no β above 0"):
        whole.betas((0.9, 0.95), {"batch": 16.0})


@pytest.mark.parametrize("name", ["mup", "completep", "completed_p"])
def test_the_two_forms_of_the_head_are_one(name):
    """A multiplier f behind a matrix is f in its init std and LR, 1/f in its ε and weight decay."""
    of_variance = exponents(parametrization(name, head="variance"), "lm_head", "width")
    of_multiplier = exponents(parametrization(name, head="multiplier"), "lm_head", "width")
    f = of_multiplier["forward"]
    assert of_variance["forward"] == 0
    assert of_variance["init_variance"] == of_multiplier["init_variance"] + 2 * f
    assert of_variance["lr"] == of_multiplier["lr"] + f
    assert of_variance["eps"] == of_multiplier["eps"] - f
    assert of_variance["weight_decay"] == of_multiplier["weight_decay"] - f


RATIO = st.floats(0.05, 50)


@settings(max_examples=20)
@given(
    name=st.sampled_from(sorted(RULES)),
    router=st.sampled_from(sorted(CHOICES["router"].options)),
    first=st.tuples(RATIO, RATIO, RATIO, RATIO),
    second=st.tuples(RATIO, RATIO, RATIO, RATIO),
)
def test_rules_compose(name, router, first, second):
    """Base → a → b multiplies as base → b does."""
    rule = parametrization(name, **({} if name == "standard" else {"router": router}))
    a, b = dict(zip(AXES, first, strict=True)), dict(zip(AXES, second, strict=True))
    whole = {axis: a[axis] * b[axis] for axis in AXES}
    for role in ROLES:
        for quantity in QUANTITIES:
            two = rule.factor(quantity, role, a) * rule.factor(quantity, role, b)
            assert two == pytest.approx(rule.factor(quantity, role, whole), rel=1e-9)


def test_every_choice_is_taken_by_name_and_every_term_has_a_source():
    for name in RULES:
        rule = parametrization(name)
        assert all(CHOICES[key].source(option) for key, option in rule.choices.items())
        assert all(term.source for term in rule.terms)
    assert {*parametrization("completed_p").choices} == {*CHOICES} - {*OF_MUON}
    by_muon = parametrization("completed_p", optimizer="muon").choices
    assert {*by_muon} == {*CHOICES} - {"hidden_weight_decay"}


ROW = {"quantity": "lr", "roles": ["hidden"], "width": -1, "source": "own"}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"terms": [ROW | {"roles": ["hiden"]}]}, "did you mean 'hidden'"),
        ({"terms": [ROW | {"quantity": "LR"}]}, "there is no quantity 'LR'"),
        ({"terms": [ROW | {"widht": 1}]}, "no key 'widht'"),
        ({"terms": [ROW | {"width": math.inf}]}, "is not a finite number"),
        ({"terms": [ROW | {"width": "a"}]}, "is not a finite number"),
        ({"terms": [ROW | {"source": " "}]}, "no source"),
        ({"terms": [ROW, ROW]}, "two terms are for the role hidden"),
        ({"terms": [ROW | {"quantity": "residual", "roles": ["lm_head"]}]}, "residual multiplier belongs to"),
        ({"terms": {}}, "terms must be a list"),
        ({"terms": [{"quantity": "lr", "roles": ["hidden"], "source": "own"}]}, "at least one of width"),
        ({"terms": [], "beta_exponents": {"time": 1}}, "beta_exponents must map"),
        ({"terms": [], "hidden_size_roles": ["x"]}, "hidden_size_roles must be"),
        ({"rows": []}, "no key 'rows'"),
    ],
)
def test_bad_tables(table, words):
    with pytest.raises(SpecError, match=words):
        Parametrization.from_dict(table)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("completedp", {}, "did you mean"),
        ("mup", {"rooter": "hidden"}, "did you mean 'router'"),
        ("mup", {"router": "trap"}, "the options are hidden, output"),
        ("standard", {"router": "hidden"}, "nothing to choose"),
        ("mup", {"alpha": 0.5}, "no rule for depth"),
        ("completep", {"alpha": 2.0}, "from 0.5 to 1"),
    ],
)
def test_bad_choices(name, options, words):
    with pytest.raises(SpecError, match=words):
        parametrization(name, **options)


# What Muon multiplies an update of spectral norm 1 by, by itself, and what the LR has to supply for √(out/in).
ITSELF = {
    "muon": lambda out, inp: 1.0,
    "muon_spectral": lambda out, inp: (out / inp) ** 0.5,
    "muon_original": lambda out, inp: max(1.0, out / inp) ** 0.5,
    "muon_match_rms_adamw": lambda out, inp: 0.2 * max(out, inp) ** 0.5,
}


@given(
    option=st.sampled_from(sorted(ITSELF)), base=st.tuples(*[st.integers(1, 512)] * 2),
    target=st.tuples(*[st.integers(1, 4096)] * 2), decay=st.sampled_from(sorted(CHOICES["muon_weight_decay"].options)),
    name=st.sampled_from(["mup", "completep", "completed_p"]),
)  # fmt: skip
def test_updates_of_muon_keep_the_spectral_norm_of_the_spectral_condition(option, base, target, decay, name):
    """arXiv 2310.17813: the spectral norm of an update in proportion to √(out/in), whatever Muon multiplies it by."""
    rule = parametrization(name, optimizer=option, muon_weight_decay=decay, batch="completed_p")
    (out, inp), (large_out, large_in) = base, target
    ratios = {"width": large_in / inp, "fan_in": large_in / inp, "fan_out": large_out / out}
    ratios["larger"] = max(target) / max(base)
    for role in WEIGHTS:
        lr = rule.factor("lr", role, ratios)
        grown = ITSELF[option](large_out, large_in) / ITSELF[option](out, inp)
        assert lr * grown == pytest.approx((large_out / large_in / (out / inp)) ** 0.5)
        times = rule.factor("weight_decay", role, ratios) * lr  # torch multiplies the decay by the LR of the group
        assert times == pytest.approx(1.0 if decay == "constant" else inp / large_in)
        assert rule.factor("init_variance", role, ratios) == pytest.approx(inp / large_in)
        assert rule.factor("eps", role, {**ratios, **PRIMES}) == 1.0  # Muon has none
        assert rule.by_muon(role)


@pytest.mark.parametrize("name", ["mup", "completep", "completed_p"])
@pytest.mark.parametrize("option", sorted(ITSELF))
def test_beside_muon_the_rest_has_adamws_table(name, option):
    rule, plain = parametrization(name, optimizer=option), parametrization(name)
    ratios = {**PRIMES, "fan_in": 11.0, "fan_out": 13.0, "larger": 17.0}
    for role in {*ROLES} - {*WEIGHTS}:
        assert not rule.by_muon(role)
        for quantity in QUANTITIES:
            assert rule.factor(quantity, role, ratios) == plain.factor(quantity, role, ratios), (role, quantity)
    for role in WEIGHTS:  # depth, tokens and batch as for AdamW
        for quantity in ("lr", "weight_decay", "residual"):
            found, want = (one.factor(quantity, role, {"depth": 3.0, "tokens": 5.0}) for one in (rule, plain))
            assert found == pytest.approx(want)


@pytest.mark.parametrize("form", ["variance", "multiplier"])
def test_the_head_beside_muon_may_have_the_lr_of_dion(form):
    table, sqrt = (parametrization("mup", optimizer="muon", head=form, muon_head=one) for one in ("table", "sqrt"))
    width = {"width": 4.0}
    assert sqrt.factor("lr", "lm_head", width) == 2 * table.factor("lr", "lm_head", width)
    for one in (table, sqrt):  # LR × weight decay stays
        times = one.factor("lr", "lm_head", width) * one.factor("weight_decay", "lm_head", width)
        assert times == pytest.approx(1.0)
    for quantity in ("init_variance", "forward", "eps"):
        assert sqrt.factor(quantity, "lm_head", width) == table.factor(quantity, "lm_head", width)


def test_choices_of_muon_have_a_meaning_with_muon_only():
    with pytest.raises(SpecError, match="muon_head='sqrt' has no meaning with optimizer='adamw'"):
        parametrization("mup", muon_head="sqrt")
    with pytest.raises(SpecError, match="hidden_weight_decay='sqrt' has no meaning with optimizer='muon'"):
        parametrization("mup", optimizer="muon", hidden_weight_decay="sqrt")
    with pytest.raises(SpecError, match="standard has no rule for width"):
        parametrization("standard", optimizer="muon")
    own = {"name": "own", "optimizer": "muon_spectral", "terms": [
        {"quantity": "lr", "roles": ["dense_in"], "fan_out": 0.5, "larger": -0.5, "source": "own"}]}  # fmt: skip
    rule = Parametrization.from_dict(own)
    assert rule.by_muon("dense_in")
    assert rule.factor("lr", "dense_in", {"fan_out": 4.0, "larger": 16.0}) == 0.5
    with pytest.raises(SpecError, match="there is no optimizer 'moun'; did you mean 'muon'"):
        Parametrization.from_dict(own | {"optimizer": "moun"})
