import logging
import math
import random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from raylr.analysis import LRLaw
from raylr.errors import InputError
from raylr.searchers import QuadraticSearch, Setting

SPACE = {"lr": tune.loguniform(1e-4, 1e-1)}


def bowl(best, skew=0.0):
    return lambda lr: 2.5 * (1 + 0.012 * math.log(lr / best) ** 2 + skew * math.log(lr / best) ** 3)


def begin(space=SPACE, mode="min", **kwargs):
    search = QuadraticSearch(**kwargs)
    assert search.set_search_properties("loss", mode, space)
    return search


def drive(search, loss_of, *, slots=1, seed=0, most=2000, report=None):
    """Run a search to its end, `slots` trials at once that end in random order; returns (cell, lr) by suggestion."""
    order, running, given = random.Random(seed), [], []
    for i in range(most):
        config = None
        if len(running) < slots:
            config = search.suggest(f"t{i}")
        if isinstance(config, dict):
            given.append((config.get("size"), config["lr"]))
            running.append((f"t{i}", config))
        elif not running:
            assert config == Searcher.FINISHED
            return given
        if running and (len(running) == slots or not isinstance(config, dict)):
            trial, c = running.pop(order.randrange(len(running)))
            search.on_trial_complete(trial_id=trial, result=report(c) if report else {"loss": loss_of(c)}, error=False)
    raise AssertionError("the search did not end")


def by_setting(suggested):
    return {setting: [lr for c, lr in suggested if c == setting] for setting in {c for c, _ in suggested}}


@pytest.mark.parametrize("best", [3e-4, 1e-3, 4e-3, 3e-2])
def test_finds_the_optimum_of_a_quadratic(best):
    search = begin()
    trials = drive(search, lambda c: bowl(best)(c["lr"]))
    got = search.recommend()
    assert len(trials) <= 6
    assert abs(math.log(got.lr / best)) < 0.15
    assert got.lr_low < best < got.lr_high
    assert got.status == "ok"
    assert got.loss == pytest.approx(2.5, rel=1e-3)


def test_maximises():
    search = begin(mode="max")
    drive(search, lambda c: 1 - 0.1 * bowl(2e-3)(c["lr"]))
    assert abs(math.log(search.recommend().lr / 2e-3)) < 0.2
    assert search.recommend().loss == pytest.approx(0.75, rel=1e-2)


SETTINGS = [Setting(name=str(n), config={"size": n}, params=1e6 * n, tokens=2e7 * n) for n in (1, 2, 4, 8, 16)]


def loss_of_setting(c):
    return bowl(4e-3 * c["size"] ** -0.5)(c["lr"])


@pytest.mark.parametrize("slots", [1, 2, 8, 64])
def test_suggestions_depend_on_results_only(slots):
    want = by_setting(drive(begin(settings=SETTINGS), loss_of_setting))
    for seed in range(3):
        assert by_setting(drive(begin(settings=SETTINGS), loss_of_setting, slots=slots, seed=seed)) == want


def test_later_settings_need_two_or_three_trials():
    search = begin(settings=SETTINGS)
    trials = by_setting(drive(search, loss_of_setting))
    assert all(2 <= len(trials[n]) <= 3 for n in (8, 16))
    assert len(trials[8]) + len(trials[16]) < 6
    for setting in SETTINGS:
        assert abs(math.log(search.recommend(setting).lr / (4e-3 * setting.config["size"] ** -0.5))) < 0.2


def test_diverged_runs_bound_from_above():
    search = begin()
    drive(search, lambda c: bowl(1e-3)(c["lr"]) if c["lr"] < 2e-3 else math.nan)
    assert abs(math.log(search.recommend().lr / 1e-3)) < 0.3


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_all_diverged(value):
    search = begin(max_trials=5)
    assert len(drive(search, lambda c: value)) == 5
    got = search.recommend()
    assert (got.status, got.lr) == ("diverged", None)
    assert got.lr_high < 1e-2


def test_reports_without_the_metric_are_named(caplog):
    search = begin(max_trials=4)
    with caplog.at_level(logging.ERROR):
        drive(search, None, report=lambda c: {"perplexity": 3.0})
    assert "never reported 'loss'; it reported perplexity" in caplog.text
    assert search.recommend().status == "too_few"


def test_the_edge_is_said_or_left():
    stay = begin()
    drive(stay, lambda c: bowl(5e-1)(c["lr"]))
    assert stay.recommend().status == "edge_high"
    assert stay.recommend().lr == pytest.approx(1e-1)
    go = begin(extend=True)
    drive(go, lambda c: bowl(5e-1)(c["lr"]))
    assert abs(math.log(go.recommend().lr / 5e-1)) < 0.2
    assert "extended" in go.recommend().reason


def test_a_law_is_a_prior():
    law = LRLaw(c=1e-3, alpha=0.5, beta=0.0, params_unit=1e6, tokens_unit=1.0, lr_unit=1.0)
    search = begin(settings=SETTINGS[:1], prior=law)
    first = search.suggest("a")["lr"], search.suggest("b")["lr"]
    assert math.sqrt(first[0] * first[1]) == pytest.approx(1e-3, rel=1e-3)
    with pytest.raises(ValueError, match="needs the parameters and tokens"):
        QuadraticSearch(prior=law)


def test_points_come_first_and_known_ones_are_not_run():
    points = [{"lr": 7e-4}, {"lr": 9e-3}]
    assert [lr for _, lr in drive(begin(points_to_evaluate=points), lambda c: bowl(2e-3)(c["lr"]))][:2] == [7e-4, 9e-3]
    known = begin(points_to_evaluate=points, evaluated_rewards=[bowl(2e-3)(p["lr"]) for p in points])
    given = [lr for _, lr in drive(known, lambda c: bowl(2e-3)(c["lr"]))]
    assert not {7e-4, 9e-3} & set(given)
    assert abs(math.log(known.recommend().lr / 2e-3)) < 0.2


def test_save_and_restore_go_on_alike(tmp_path):
    search = begin(settings=SETTINGS)
    want = by_setting(drive(begin(settings=SETTINGS), loss_of_setting))
    a = {t: search.suggest(t) for t in ("a", "b")}
    search.on_trial_complete(trial_id="a", result={"loss": loss_of_setting(a["a"])}, error=False)
    search.save(str(tmp_path / "state"))
    again = QuadraticSearch(settings=SETTINGS)
    again.restore(str(tmp_path / "state"))
    again.on_trial_complete(trial_id="b", result={"loss": loss_of_setting(a["b"])}, error=False)
    got = by_setting([(c["size"], c["lr"]) for c in a.values()] + drive(again, loss_of_setting))
    assert got == want
    with pytest.raises(InputError, match="has worked in"):
        begin().set_search_properties("loss", "min", {"lr": tune.loguniform(1e-6, 1e-5)})
    with pytest.raises(InputError, match="has finished in another Tuner"):
        again.set_search_properties("loss", "min", SPACE)


def test_nested_keys():
    search = begin({"optim": {"lr": tune.loguniform(1e-4, 1e-1)}}, lr_key="optim.lr")
    assert set(search.suggest("a")) == {"optim"}
    assert 1e-4 < search.suggest("b")["optim"]["lr"] < 1e-1


def test_concurrency_is_kept():
    search = ConcurrencyLimiter(QuadraticSearch(settings=SETTINGS, metric="loss", mode="min"), 3)
    search.set_search_properties("loss", "min", SPACE)
    assert [isinstance(search.suggest(str(i)), dict) for i in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr": tune.grid_search([1e-3, 1e-2])}, "grid_search"),
        ({"lr": 1e-3}, "constant"),
        ({"lr": tune.choice([1e-3, 1e-2])}, "'lr' is a tune.choice, not a numeric range"),
        ({"lr": tune.uniform(-1.0, 1.0)}, "0 < low < high"),
        ({"lr": tune.randn()}, "not a numeric range"),
        ({"learning_rate": tune.loguniform(1e-4, 1e-1), "lrr": 1.0}, "Did you mean lr_key='lrr'"),
    ],
)
def test_bad_spaces(space, message):
    with pytest.raises(ValueError, match=message):
        begin({k: v for k, v in space.items() if k != "learning_rate"})


def test_no_space():
    with pytest.raises(ValueError, match="no range to search"):
        QuadraticSearch(metric="loss", mode="min").suggest("a")


def test_registry():
    assert isinstance(tune.search.create_searcher("raylr", lr_key="eta"), QuadraticSearch)


def test_other_domains_go_to_an_inner_searcher():
    space = {**SPACE, "model": {"dropout": tune.uniform(0.0, 0.5)}, "kind": tune.choice(["a", "b"])}
    search = begin(space, max_trials=6)
    seen = []
    for i in range(10):
        config = search.suggest(f"t{i}")
        if not isinstance(config, dict):
            break
        seen.append(config)
        search.on_trial_complete(trial_id=f"t{i}", result={"loss": bowl(2e-3)(config["lr"])}, error=False)
    assert all(0 <= c["model"]["dropout"] <= 0.5 and c["kind"] in ("a", "b") for c in seen)
    assert abs(math.log(search.recommend().lr / 2e-3)) < 0.2
    with pytest.raises(ValueError, match="inner=False leaves nothing to search kind, model/dropout"):
        begin({k: space[k] for k in ("lr", "kind", "model")}, inner=False)
    with pytest.raises(ValueError, match="'kind' is a grid_search"):
        begin({**SPACE, "kind": tune.grid_search([1, 2])})


def test_a_run_cut_short_by_another_scheduler_is_extrapolated():
    search = QuadraticSearch("loss", "min", lr_range=(1e-4, 1e-1), settings=[Setting(tokens=1e9)], tolerance=1e-9)
    for i in range(8):
        lr = search.suggest(f"t{i}")["lr"]
        end = 10 if i % 2 else 20
        for step in range(1, end + 1):
            result = {"loss": bowl(2e-3)(lr) - 0.3 + 0.3 * (step / 20) ** -0.5, "tokens": step * 5e7}
            search.on_trial_result(f"t{i}", result)
        search.on_trial_complete(trial_id=f"t{i}", result=result, error=False)
    got = search.recommend()
    assert abs(math.log(got.lr / 2e-3)) < 0.35
    assert got.loss == pytest.approx(2.5, rel=5e-3)


@hypothesis_settings(deadline=None)
@given(
    best=st.floats(3e-4, 3e-2), curvature=st.floats(0.004, 0.05), skew=st.floats(-0.6, 0.6), scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_any_skewed_quadratic_is_found_whatever_its_units(best, curvature, skew, scale, seed):
    def loss(lr):
        u = math.log(lr / best)
        rise = u * u if abs(skew) < 1e-6 else 2 * (math.expm1(skew * u) - skew * u) / skew**2
        return scale * (1 + curvature * rise)

    search = begin(seed=seed)
    drive(search, lambda c: loss(c["lr"]))
    assert loss(search.recommend().lr) / scale - 1 < 2e-3


@hypothesis_settings(deadline=None)
@given(results=st.lists(st.one_of(st.floats(), st.none(), st.just("missing"), st.just("error")), max_size=12))
def test_no_result_raises(results):
    search = begin(max_trials=20, tolerance=1e-9, extend=True)
    for i, value in enumerate(results):
        config = search.suggest(f"t{i}")
        if not isinstance(config, dict):
            break
        result = None if value == "error" else {"tokens": 1.0} if value == "missing" else {"loss": value}
        search.on_trial_complete(trial_id=f"t{i}", result=result, error=value == "error")
        advice = search.recommend()
        assert advice.lr is None or (math.isfinite(advice.lr) and advice.lr_low <= advice.lr <= advice.lr_high)


def test_further_axes_are_searched_with_the_lr_and_other_keys_as_before(tmp_path):
    space = {
        "lr": tune.loguniform(1e-4, 1e-1),
        "opt": {"wd": tune.loguniform(1e-2, 1.0)},
        "groups": [{"beta": tune.uniform(0.9, 0.99)}, {"batch": tune.lograndint(16, 257)}],
    }

    def search():
        return begin(space, axes=["opt.wd", "groups/1/batch"], max_trials=6)

    first = search()
    for i in range(6):
        config = first.suggest(f"t{i}")
        wd, batch = config["opt"]["wd"], config["groups"][1]["batch"]
        assert 1e-2 <= wd <= 1.0
        assert isinstance(batch, int)
        assert 0.9 <= config["groups"][0]["beta"] <= 0.99
        loss = 2 + 0.03 * math.log(config["lr"] / 3e-3) ** 2 + 0.01 * math.log(wd / 0.1) ** 2
        first.on_trial_complete(f"t{i}", {"loss": loss + 0.02 * math.log(batch / 64) ** 2})
    assert first.suggest("t6") == Searcher.FINISHED
    first.add_evaluated_point({"lr": 2e-3, "opt": {"wd": 0.1}, "groups": [{}, {"batch": 64}]}, 2.01)
    found = first.recommend()
    assert set(found.axes) == {"opt/wd", "groups/1/batch"}
    assert found.trials == 7
    first.save(str(tmp_path / "search"))
    again = QuadraticSearch(axes=["opt.wd", "groups/1/batch"], max_trials=6)
    again.restore(str(tmp_path / "search"))
    assert again.recommend() == found


def test_axes_that_are_not_in_the_space_are_errors():
    with pytest.raises(InputError, match=r"param_space has no 'wd' for the axis. Did you mean 'w'"):
        begin({**SPACE, "w": tune.loguniform(1e-2, 1.0)}, axes=["wd"])
    with pytest.raises(InputError, match=r"'wd' is the constant 0\.1, not a range"):
        begin({**SPACE, "wd": 0.1}, axes=["wd"])
    with pytest.raises(InputError, match="prior= is known for the lr alone"):
        QuadraticSearch(axes=["wd"], prior="steplaw")
    with pytest.raises(InputError, match="axes must be a list of keys"):
        QuadraticSearch(axes="wd")
    assert begin(axes={"wd": (1e-2, 1.0)}).suggest("a")["wd"] == pytest.approx(0.1)
