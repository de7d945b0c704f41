"""What the adapter of Tune does for every policy."""

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from ray import tune
from ray.tune.search import Searcher

from raylr.errors import DamagedError, InputError
from raylr.searchers import QuadraticSearch, SegmentSearch, Setting, SurfaceSearch

LOW, HIGH = 1e-4, 1e-1
SPACE = {"lr": tune.loguniform(LOW, HIGH)}
KINDS = [QuadraticSearch, lambda *a, **k: SurfaceSearch(*a, target=10.0, **k)]
KINDS.append(lambda *a, **k: SegmentSearch(*a, target=10.0, **k))


def loss(lr):
    return 2.5 + 0.03 * math.log(lr / 2e-3) ** 2


def drive(search, key=lambda config: config["lr"], kind=float):
    lrs = []
    for i in range(50):
        config = search.suggest(f"t{i}")
        if not isinstance(config, dict):
            assert config == Searcher.FINISHED
            return lrs
        lrs.append(key(config))
        search.on_trial_complete(f"t{i}", {"loss": kind(loss(lrs[-1])), "tokens": 1})
    raise AssertionError("the search did not end")


@pytest.mark.parametrize("make", KINDS)
def test_no_metric_or_mode_is_refused_at_once(make):
    for metric, mode, word in ((None, None, "metric"), ("loss", None, "mode"), (None, "min", "metric")):
        with pytest.raises(InputError, match=f"has no {word}"):
            make().set_search_properties(metric, mode, SPACE)
        with pytest.raises(InputError, match=f"has no {word}"):
            make(metric, mode, lr_range=(LOW, HIGH)).suggest("a")
    assert make("loss", "min").set_search_properties(None, None, SPACE)
    assert not make("loss", "min").set_search_properties("loss", "max", SPACE)
    assert not make("loss", "min").set_search_properties("score", "min", SPACE)


@pytest.mark.parametrize("kind", [np.float32, lambda v: np.array(v), lambda v: Decimal(str(v))])
def test_losses_of_any_kind_of_number(kind):
    search = QuadraticSearch("loss", "min", lr_range=(LOW, HIGH))
    drive(search, kind=kind)
    assert abs(math.log(search.recommend().lr / 2e-3)) < 0.2


def test_an_lr_inside_a_list():
    groups = [{"lr": tune.loguniform(LOW, HIGH), "wd": tune.uniform(0.0, 0.1)}, {"lr": 1e-3}]
    search = QuadraticSearch(lr_key="groups/0/lr", max_trials=6)
    assert search.set_search_properties("loss", "min", {"groups": groups, "betas": [0.9, 0.95]})
    config = search.suggest("a")
    assert set(config) == {"groups"}
    assert LOW < config["groups"][0]["lr"] < HIGH
    assert 0 <= config["groups"][0]["wd"] <= 0.1
    assert config["groups"][1] == {"lr": 1e-3}
    with pytest.raises(InputError, match="Did you mean lr_key='groups/0/lr'"):
        QuadraticSearch(lr_key="groups/1/Lr").set_search_properties("loss", "min", {"groups": groups[:1]})


def test_all_that_a_point_holds_is_used():
    space = {**SPACE, "model": {"dropout": tune.uniform(0.0, 0.5)}, "layers": tune.choice([1, 2]), "size": 1}
    points = [{"lr": 7e-4, "model": {"dropout": 0.25}, "layers": 2, "extra": "kept"}, {"lr": 9e-3, "layers": 1}]
    search = QuadraticSearch(points_to_evaluate=points, max_trials=6)
    search.set_search_properties("loss", "min", space)
    first, second = search.suggest("a"), search.suggest("b")
    assert first == points[0]
    assert second["lr"] == 9e-3
    assert second["layers"] == 1
    assert 0 <= second["model"]["dropout"] <= 0.5
    for trial, config in (("a", first), ("b", second)):
        search.on_trial_complete(trial, {"loss": loss(config["lr"])})
    third = search.suggest("c")
    assert "extra" not in third
    inner = search._inner._searchers[""]._ot_study.trials
    assert {t.params["model/dropout"] for t in inner if t.state.name == "COMPLETE"} >= {0.25}


@pytest.mark.parametrize("step", [5e-4, 2.5e-4])
def test_a_domain_with_steps_repeats_nothing(step):
    search = QuadraticSearch(max_trials=12, tolerance=1e-12)
    search.set_search_properties("loss", "min", {"lr": tune.quniform(5e-4, 6e-3, step)})
    lrs = drive(search)
    assert len(set(lrs)) == len(lrs) >= 4
    assert all(abs(lr / step - round(lr / step)) < 1e-9 for lr in [*lrs, search.recommend().lr])
    assert loss(min(lrs, key=loss)) - 2.5 < 1e-3


def test_whole_numbers_repeat_nothing():
    search = QuadraticSearch(lr_key="width", max_trials=20, tolerance=1e-12)
    search.set_search_properties("loss", "min", {"width": tune.randint(1, 6)})
    widths = drive(search, key=lambda config: config["width"])
    assert len(set(widths)) == len(widths)


def test_a_counter_may_start_at_zero():
    search = QuadraticSearch("loss", "min", lr_range=(LOW, HIGH), time_attr="epoch", settings=[Setting(tokens=10)])
    for i in range(4):
        config = search.suggest(f"t{i}")
        if not isinstance(config, dict):
            break
        for epoch in range(10):
            report = {"loss": loss(config["lr"]) + 1 / (epoch + 1), "epoch": epoch}
            search.on_trial_result(f"t{i}", report)
        search.on_trial_complete(f"t{i}", report)
    assert all(run.loss == run.curve.loss[-1] for run in search.policy._searches[""].runs)


@pytest.mark.parametrize("make", KINDS)
def test_a_finished_search_in_a_second_tuner_says_so(make):
    search = make(max_trials=4)
    search.set_search_properties("loss", "min", SPACE)
    drive(search, kind=lambda value: math.nan)
    with pytest.raises(InputError, match="has finished in another Tuner"):
        search.set_search_properties("loss", "min", SPACE)


def test_a_trainable_that_always_raises_ends_the_search_and_is_named():
    search, lrs = QuadraticSearch("loss", "min", lr_range=(LOW, HIGH)), []
    while isinstance(config := search.suggest(f"t{len(lrs)}"), dict):
        lrs.append(config["lr"])
        search.on_trial_complete(f"t{len(lrs) - 1}", None, error=True)
    assert lrs[:2] == lrs[2:4]
    assert len(lrs) == 8
    assert search.recommend().reason.startswith("all 8 runs raised errors: look at those first")


def test_a_saved_search_is_plain_json_and_is_checked(tmp_path):
    path, space = tmp_path / "search", {**SPACE, "kind": tune.choice(["a", "b"])}
    search, again = QuadraticSearch(seed=1), QuadraticSearch(seed=1)
    for one in (search, again):
        one.set_search_properties("loss", "min", space)
    for trial in ("a", "b"):
        search.suggest(trial)
    search.on_trial_complete("a", {"loss": 2.5})
    search.save(str(path))
    assert json.loads(path.read_text())["format"] == 1
    again.restore(str(path))
    for one in (search, again):
        one.on_trial_complete("b", {"loss": 2.6})
    assert again.suggest("c") == search.suggest("c")
    with pytest.raises(InputError, match="needs a new searcher"):
        again.restore(str(path))
    other = QuadraticSearch(seed=2)
    with pytest.raises(InputError, match="other arguments or by another version"):
        other.restore(str(path))
    for text in ("", "{}", '{"format": 1}', "\x80\x04", '{"format": 1, "events": 3}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(DamagedError):
            QuadraticSearch().restore(str(path))
    path.write_text('{"format": 99, "events": []}')
    with pytest.raises(InputError, match="later version"):
        QuadraticSearch().restore(str(path))


def test_points_and_rewards_are_checked():
    two = [Setting(name=str(n), config={"size": n}) for n in (1, 2)]
    for options, message in (
        ({"points_to_evaluate": [{"wd": 1}]}, "no positive number at 'lr'"),
        ({"points_to_evaluate": [{"lr": 1e-3}], "evaluated_rewards": [1.0, 2.0]}, "1 points_to_evaluate but 2"),
        ({"points_to_evaluate": [{"lr": 1e-3}], "settings": two}, "belongs to 0 of the settings"),
        ({"settings": [two[0], two[0]]}, "same name"),
        ({"mode": "best"}, 'mode must be "min" or "max"'),
    ):
        with pytest.raises(InputError, match=message):
            QuadraticSearch(**options)
