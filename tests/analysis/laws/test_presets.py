import math

import pytest

from raylr.analysis.laws import presets

ZHOU_TABLE_4 = {0.545e9: 8.75e-4, 1e9: 7.24e-4, 2e9: 6.36e-4, 3e9: 5.90e-4, 4e9: 5.55e-4}


def test_zhou_gives_its_own_published_optima():
    law = presets.get("zhou2026")
    assert law.lr(4e9, 120e9) == pytest.approx(5.55e-4, rel=0.1)
    assert law.lr(12e9, 500e9) == pytest.approx(2.50e-4, rel=0.01)
    assert law.lr(4e9, 500e9) == pytest.approx(3.19e-4, rel=0.01)


@pytest.mark.parametrize(("params", "published"), ZHOU_TABLE_4.items())
def test_zhou_matches_table_4(params, published):
    ratio = presets.get("zhou2026").lr(params, 120e9) / published
    assert 0.93 < ratio < 1.07


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("zhou2026", lambda n, d: 1e-4 * 38.4588 * (n / 1e9) ** -0.2219 * (d / 1e9) ** -0.3509),
        ("steplaw", lambda n, d: 1.79 * n**-0.713 * d**0.307),
        ("porian2024", lambda n, d: 3.7 * n**-0.36),
        ("olmo-ladder", lambda n, d: 0.0047 * (n / 108e6) ** (-1 / 3)),
    ],
)
def test_presets_are_their_formulas(name, formula):
    law = presets.get(name)
    for n, d in ((1e8, 2e9), (1e9, 1e11), (7e10, 2e12)):
        assert law.lr(n, d) == pytest.approx(formula(n, d))
    assert law.conditions.objective == ("stable" if name == "zhou2026" else "decayed")


def test_every_law_of_the_survey_is_there():
    assert set(presets.names()) == {"zhou2026", "steplaw", "porian2024", "olmo-ladder"}
    assert set(presets.other_names()) == {"kaplan2020", "deepseek2024", "bjorck2024", "minicpm2024"}


@pytest.mark.parametrize(("layers", "hidden", "published"), [(30, 4096, 4.2e-4), (95, 8192, 3.2e-4)], ids=["7B", "67B"])
def test_deepseek_gives_the_lrs_of_its_own_models(layers, hidden, published):
    """DeepSeek LLM 7B and 67B: 2T tokens, sequences of 4,096; M = 72 layers hidden^2 + 12 layers hidden sequence."""
    flops = 72 * layers * hidden**2 + 12 * layers * hidden * 4096
    assert presets.other("deepseek2024").lr(1, 2e12, flops_per_token=flops) == pytest.approx(published, rel=0.04)


@pytest.mark.parametrize("name", ["bjorck2024", "minicpm2024"])
def test_a_law_of_which_only_the_form_is_known_refuses(name):
    with pytest.raises(ValueError, match=f"{name} gives no LR"):
        presets.other(name).lr(1e9, 1e11)
    with pytest.raises(ValueError, match=r"presets\.other"):
        presets.get(name)


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_says_what_it_does_not_know(name):
    law = presets.get(name)
    assert law.source
    assert law.notes
    said = law.predict(1e9, 1e11)
    assert 1e-5 < said.lr < 0.05
    assert math.isnan(said.lr_low)
    assert "interval unknown" in said.message
    assert (law.params_range is not None) or "not known" in said.message
    assert type(law).from_json(law.to_json()).to_json() == law.to_json()


def test_unverified_sources_are_marked():
    assert {name for name in presets.names() if not presets.get(name).verified} == {"porian2024"}
    assert not any(presets.other(name).verified for name in presets.other_names())


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'zhou2026'"):
        presets.get("zhou")
    with pytest.raises(ValueError, match="did you mean 'kaplan2020'"):
        presets.other("kaplan")


def test_laws_of_another_form():
    kaplan, deepseek = presets.other("kaplan2020"), presets.other("deepseek2024")
    assert kaplan.lr(1e9, 1e10) == pytest.approx(0.003239 - 0.0001395 * math.log(1e9))
    with pytest.raises(ValueError, match="not positive"):
        kaplan.lr(1e12, 1e10)
    assert deepseek.lr(1e9, 1e10) == pytest.approx(0.3118 * 6e19**-0.125)
    assert deepseek.lr(1e9, 1e10, flops_per_token=1e9) == pytest.approx(0.3118 * 1e19**-0.125)
    with pytest.raises(ValueError, match="params"):
        deepseek.lr(-1, 1)
