import math

import pytest

from raylr.analysis import presets

ZHOU_TABLE_4 = {0.5e9: 8.75e-4, 1e9: 7.24e-4, 2e9: 6.36e-4, 3e9: 5.90e-4, 4e9: 5.55e-4}


def test_zhou_gives_its_own_published_optima():
    law = presets.get("zhou2026")
    assert law.lr(4e9, 120e9) == pytest.approx(5.55e-4, rel=0.1)
    assert law.lr(12e9, 500e9) == pytest.approx(2.50e-4, rel=0.01)
    assert law.lr(4e9, 500e9) == pytest.approx(3.19e-4, rel=0.01)


@pytest.mark.parametrize(("params", "published"), ZHOU_TABLE_4.items())
def test_zhou_matches_table_4(params, published):
    ratio = presets.get("zhou2026").lr(params, 120e9) / published
    assert 0.9 < ratio < 1.1


def test_step_law_is_its_formula():
    law = presets.get("steplaw")
    assert law.lr(1e9, 1e11) == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307)
    assert law.objective == "decayed"


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_says_what_it_does_not_know(name):
    law = presets.get(name)
    assert law.source
    assert law.schedule
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
