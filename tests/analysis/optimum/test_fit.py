"""The fit of the loss over the LR: invariance, agreement with measurements, cliffs, noise, edges, odd shapes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import OptimumFit, OptimumPrior, Status, fit_optimum

SHAPES = ("parabola", "skewed", "hinge", "nan cliff", "cliff to 10", "chance", "flat", "two minima", "saturating")


def loss_of(kind: str, u: np.ndarray, curvature: float) -> np.ndarray:
    """Loss over u = ln(lr / best lr) of a made-up function."""
    smooth = 2.0 + curvature * u**2
    if kind == "skewed":
        return 2.0 + curvature * 2 * (np.expm1(0.6 * u) - 0.6 * u) / 0.36
    if kind == "hinge":
        return 2.0 + curvature * np.where(u > 0, 1.7 * u, -u)
    if kind == "nan cliff":
        return np.where(u > 0.7, np.nan, smooth)
    if kind == "cliff to 10":
        return np.where(u > 0.7, 10 + 100 * curvature, smooth)
    if kind == "chance":
        return np.where(u > 0.7, 2.0 + 30 * curvature, smooth)
    if kind == "flat":
        return np.full_like(u, 2.0)
    if kind == "two minima":
        return np.minimum(smooth, 2.0 + 0.3 * curvature + curvature * (u - 2.5) ** 2)
    if kind == "saturating":
        return 2.0 + curvature * 4 / (1 + np.exp(2 * (u + 2))) + np.where(u > 1, curvature * 9, 0)
    return smooth


cells = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(SHAPES),
        "curvature": st.floats(math.log(0.003), math.log(10)).map(math.exp),
        "optimum": st.floats(0.2, 0.8),
        "width": st.floats(3, 9),
        "lrs": st.integers(3, 14),
    }
)


def measured(cell: dict[str, float]) -> tuple[np.ndarray, np.ndarray, float]:
    """LRs, losses and ln of the best LR of a cell."""
    x = np.linspace(0, cell["width"], int(cell["lrs"])) + math.log(1e-5)
    best = math.log(1e-5) + cell["optimum"] * cell["width"]
    return np.exp(x), loss_of(str(cell["kind"]), x - best, cell["curvature"]), best


@settings(max_examples=60, deadline=None)
@given(cell=cells, scale=st.sampled_from([1e-6, 1e6]), shift=st.sampled_from([0.0, -2.0, -7.0]))
def test_scale_and_level_of_the_loss_and_units_of_the_lr_change_nothing(
    cell: dict[str, float], scale: float, shift: float
) -> None:
    lr, loss, _ = measured(cell)
    one, other = fit_optimum(lr, loss), fit_optimum(lr * 64.0, (loss + shift) * scale)
    assert one.status is other.status
    if math.isfinite(one.lr):
        # a tie between two LRs may fall either way by rounding: both then have the same expected loss
        expected = float(one.predict(one.lr)[0]), float(one.predict(other.lr / 64.0)[0])
        spread = float(np.nanmax(loss) - np.nanmin(loss)) or 1.0
        same = other.lr / 64.0 == pytest.approx(one.lr, rel=1e-3)
        assert same or expected[1] == pytest.approx(expected[0], abs=2e-3 * spread)


@settings(max_examples=100, deadline=None)
@given(cell=cells)
def test_the_answer_is_never_worse_than_the_best_lr_tried_and_its_loss_not_better_than_the_losses_allow(
    cell: dict[str, float],
) -> None:
    if cell["kind"] == "two minima":  # few LRs cannot show the ridge between them
        cell = cell | {"lrs": 14}
    lr, loss, best = measured(cell)
    fit = fit_optimum(lr, loss)
    if not np.isfinite(loss).any():
        assert fit.status is Status.DIVERGED
        return
    at = float(loss_of(str(cell["kind"]), np.array([math.log(fit.lr) - best]), cell["curvature"])[0])
    # the functions' own rise over one step of the grid bounds what an untried LR can cost
    finite = loss[np.isfinite(loss)]
    span = float(np.sort(finite)[min(1, finite.size - 1)] - finite.min())
    assert at <= finite.min() + max(0.01 * 2.0, span)
    assert lr.min() * 0.999 <= fit.lr <= lr.max() * 1.001
    assert fit.lr_low <= fit.lr * (1 + 1e-9)
    assert fit.lr_high >= fit.lr * (1 - 1e-9)
    assert fit.regret >= 0


@settings(max_examples=40, deadline=None)
@given(
    curvature=st.floats(math.log(0.003), math.log(10)).map(math.exp),
    optimum=st.floats(0.3, 0.7),
    width=st.floats(3, 7),
)
def test_an_exact_parabola_is_found_and_known_from_six_lrs(curvature: float, optimum: float, width: float) -> None:
    lr, loss, best = measured(
        {"kind": "parabola", "curvature": curvature, "optimum": optimum, "width": width, "lrs": 6}
    )
    fit = fit_optimum(lr, loss)
    assert fit.status is Status.OK
    assert math.log(fit.lr) == pytest.approx(best, abs=0.15)
    assert fit.lr_low <= math.exp(best) <= fit.lr_high


def test_the_example_of_a_bound_that_counted_for_nothing_stays_at_the_best_lr() -> None:
    lr, loss = [5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2], [3.469, 3.424, 3.366, 4.903, 6.933, 7.675]
    assert fit_optimum(lr, loss).lr <= 2e-3 * 1.001


@pytest.mark.parametrize("bad", [math.nan, math.inf, 10.0])
def test_an_untried_lr_between_the_best_and_a_diverged_one_is_not_ok(bad: float) -> None:
    lr, loss = np.array([1e-4, 3e-4, 1e-3, 3e-3, 1e-2]), np.array([3.5, 3.35, 3.25, 3.2, bad])
    fit = fit_optimum(lr, loss)
    tried = np.abs(np.log(lr) - math.log(fit.lr)).min() < 1e-9
    assert tried or fit.status is not Status.OK
    assert float(fit.divergence_probability(2e-4)) < 0.05
    assert float(fit.divergence_probability(9e-3)) > 0.5
    assert fit.lr_high <= 1e-2


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.15, 3.0), min_size=3, max_size=7),
    share=st.floats(0, 1),
    curvature=st.floats(math.log(0.003), math.log(10)).map(math.exp),
)
def test_an_exact_parabola_around_its_minimum_is_no_edge(gaps: list[float], share: float, curvature: float) -> None:
    x = np.append(0.0, np.cumsum(gaps))
    near = 0.15 - 1e-9  # closer to an end of the LRs tried, the run there shows the loss at the minimum
    vertex = near + share * (x[-1] - 2 * near)
    fit = fit_optimum(np.exp(x - 6), 2.0 + curvature * (x - vertex) ** 2)
    assert fit.status not in (Status.EDGE_LOW, Status.EDGE_HIGH)
    assert fit.lr_low <= math.exp(vertex - 6) <= fit.lr_high


def test_a_minimum_between_the_last_two_lrs_is_no_edge() -> None:
    u = np.array([-2.90, -2.75, -1.38, 0.82])
    fit = fit_optimum(0.03 * np.exp(u), 2.0 + 0.1 * u**2)
    assert fit.status is Status.UNCERTAIN
    assert fit.lr == pytest.approx(0.03, rel=0.1)


def test_monotone_losses_are_an_edge_and_the_answer_the_end() -> None:
    lr = np.geomspace(1e-4, 1e-2, 6)
    falling = 3.0 + 0.1 * (np.log(1.0) - np.log(lr))
    assert fit_optimum(lr, falling).status is Status.EDGE_HIGH
    assert fit_optimum(lr, falling[::-1]).status is Status.EDGE_LOW
    assert fit_optimum(lr, falling).lr == pytest.approx(1e-2)
    # with a diverged run above, the best LR is bracketed
    assert fit_optimum(np.append(lr, 1.3e-2), np.append(falling, math.nan)).status is not Status.EDGE_HIGH


def test_odd_shapes_are_named() -> None:
    lr = np.geomspace(1e-5, 1e-1, 9)
    u = np.log(lr / 1e-3)
    assert fit_optimum(lr, np.full(9, 2.0)).status is Status.FLAT
    assert fit_optimum(lr, np.full(9, math.nan)).status is Status.DIVERGED
    assert fit_optimum([], []).status is Status.TOO_FEW
    assert fit_optimum([1e-3], [2.0]).status is Status.TOO_FEW
    two = np.array([3.0, 2.4, 2.02, 2.5, 2.9, 2.4, 2.0, 2.6, 3.1])
    assert fit_optimum(lr, two).status is Status.TWO_MINIMA
    plateau = 2.0 + np.where(np.abs(u) < 3, 0.0, (np.abs(u) - 3) ** 2)
    assert fit_optimum(lr, plateau).status is Status.PLATEAU


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05])
def test_intervals_hold_the_optimum_under_noise(noise: float) -> None:
    rng = np.random.default_rng(round(1000 * noise))
    inside = []
    for _ in range(60):
        width, c = rng.uniform(4, 7), 3.0 * math.exp(rng.uniform(math.log(0.02), math.log(0.2)))
        x = np.linspace(0, width, 10)
        best = width * rng.uniform(0.3, 0.7)
        fit = fit_optimum(np.exp(x), 3.0 + c * (x - best) ** 2 + 3.0 * noise * rng.standard_normal(10))
        inside.append(fit.lr_low <= math.exp(best) <= fit.lr_high)
    assert np.mean(inside) >= 0.8  # 90 % less two standard errors of 60


def test_replicates_and_standard_errors_say_how_noisy_runs_are() -> None:
    rng = np.random.default_rng(3)
    x = np.repeat(np.linspace(0, 5, 6), 3)
    mean = 3.0 + 0.05 * (x - 2.4) ** 2
    fit = fit_optimum(np.exp(x), mean + 0.03 * rng.standard_normal(18))
    assert 0.01 < fit.noise < 0.09
    exact = fit_optimum(np.exp(x), mean)
    assert exact.noise < 1e-3
    known = fit_optimum(np.exp(x[::3]), mean[::3], stderr=0.2)
    assert known.lr_high / known.lr_low > exact.lr_high / exact.lr_low


def test_an_lr_at_which_half_of_the_runs_diverged_has_diverged() -> None:
    lr = [1e-4, 1e-3, 3e-3, 1e-2, 1e-2, 3e-2]
    fit = fit_optimum(lr, [3.4, 3.2, 3.15, 3.1, math.nan, math.nan])
    assert fit.lr < 1e-2


def test_a_prior_settles_a_cell_with_two_runs_and_gives_way_to_many() -> None:
    prior = OptimumPrior(center=math.log(1e-3), center_sd=0.3, curvature=0.05, curvature_log_sd=0.4)
    loss = 3.0 + 0.05 * np.log(np.array([8e-4, 1.3e-3]) / 1e-3) ** 2
    two = fit_optimum([8e-4, 1.3e-3], loss, prior=prior)
    assert two.status is Status.OK
    assert two.lr == pytest.approx(1e-3, rel=0.15)
    lr = np.geomspace(1e-4, 1e-1, 10)
    many = fit_optimum(lr, 3.0 + 0.05 * np.log(lr / 5e-3) ** 2, prior=prior)
    assert many.lr == pytest.approx(5e-3, rel=0.1)
    assert fit_optimum([], [], prior=prior).lr == pytest.approx(1e-3)


def test_answers_of_the_posterior_agree_with_each_other() -> None:
    lr = np.geomspace(1e-4, 1e-2, 7)
    fit = fit_optimum(lr, 3.0 + 0.02 * np.log(lr / 1.2e-3) ** 2)
    assert float(fit.predict(fit.lr)[0]) == pytest.approx(fit.loss)
    assert float(fit.expected_regret(fit.lr)) == pytest.approx(fit.regret)
    mean, sd = fit.predict(lr)
    assert np.allclose(mean, 3.0 + 0.02 * np.log(lr / 1.2e-3) ** 2, atol=1e-3)
    assert np.shape(sd) == (7,)
    assert np.all(np.diff(fit.quantiles([0.1, 0.5, 0.9])) >= 0)
    assert np.array_equal(fit.draws(50, seed=1), fit.draws(50, seed=1))
    assert fit.moments()["curvature"][0] == pytest.approx(math.log(0.02), abs=0.2)
    assert fit.moments()["center"][0] == pytest.approx(math.log(1.2e-3), abs=0.1)
    low, regret = fit.recommend(2e-3, 1e-2)
    assert low == pytest.approx(2e-3, rel=0.1)
    assert regret > fit.regret
    assert 0 < fit.log_lr_stderr() < 0.5


def test_a_thousand_runs_take_no_more_than_their_bins() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 5, 1000)
    fit = fit_optimum(np.exp(x), 3 + 0.02 * (x - 2) ** 2 + 0.02 * rng.standard_normal(1000))
    assert fit.losses.tried.size <= 24
    assert math.log(fit.lr) == pytest.approx(2, abs=0.4)
    assert fit.noise == pytest.approx(0.02, rel=0.8)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: fit_optimum([-1.0], [2.0]), "lr must be"),
        (lambda: fit_optimum([1e-3], [2.0, 3.0]), "one entry"),
        (lambda: fit_optimum([1e-3], [2.0], lr_range=(1e-2, 1e-3)), "lowest and the highest"),
        (lambda: fit_optimum([1e-3], [2.0], lr_factor=0.5), "lr_factor"),
        (lambda: fit_optimum([1e-3], [2.0], tolerance=-1.0), "tolerance"),
        (lambda: fit_optimum([1e-3], [2.0], prior="law"), "OptimumPrior"),  # type: ignore[arg-type]
        (lambda: OptimumPrior(center_sd=0.0), "center_sd"),
        (lambda: OptimumPrior(center=math.nan), "center"),
    ],
)
def test_bad_input_says_what_is_wrong(call: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        call()  # type: ignore[operator]


def test_failures_are_data_and_predict_nothing() -> None:
    fit: OptimumFit = fit_optimum([1e-3, 1e-2], [math.nan, math.inf])
    assert not fit.ok
    assert math.isnan(fit.lr)
    assert fit.lr_high == pytest.approx(1e-3)
    assert math.isnan(float(fit.predict(1e-3)[0]))
    assert float(fit.divergence_probability(2e-3)) == 1.0
    with pytest.raises(ValueError, match="no finite loss"):
        fit.draws(3)


def test_many_noisy_runs_of_a_parabola_are_not_flat():
    """The LRs around the best, which the model looks at, differ by little more than noise; those far away do not."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(np.log(1e-4), np.log(1e-1), 12), rng.normal(np.log(2e-3), 0.15, 60)])
    loss = 2.5 + 0.03 * (x - np.log(2e-3)) ** 2 + 0.003 * rng.normal(size=x.size)
    fit = fit_optimum(np.exp(x), loss)
    assert fit.status is not Status.FLAT
    assert fit.lr_low < 2e-3 < fit.lr_high


def test_an_untried_lr_right_below_a_divergence_is_not_ok():
    """Nothing was measured between the answer and the divergence: it has to be tried first."""
    lr = np.geomspace(1e-4, 1.6e-3, 5)
    loss = np.array([*(2 + 0.1 * np.log(lr / 2.2e-3) ** 2), np.nan])
    fit = fit_optimum(np.append(lr, 3.2e-3), loss)
    assert fit.lr <= lr[-1] * (1 + 1e-9) or not fit.status.ok


@given(
    curvature=st.floats(math.log(0.003), math.log(10)).map(math.exp),
    at=st.floats(0.35, 0.65),
    width=st.floats(5, 12),
    lrs=st.integers(4, 6),
)
def test_no_draw_lies_absurdly_far_below_what_was_measured(curvature: float, at: float, width: float, lrs: int) -> None:
    """A curve that holds for few LRs has no minimum beyond the others: no draw is deeper than the measured heights."""
    u = (np.linspace(0, 1, lrs) - at) * width
    fit = fit_optimum(np.exp(u - 7), 2.0 + curvature * u**2)
    spread = curvature * float((u**2).max() - (u**2).min())
    deepest = 2.0 + curvature * float((u**2).min())
    inside = np.exp(np.linspace(u[0], u[-1], 60) - 7)
    mean, _sd = fit.predict(inside)
    assert float(np.min(mean)) > deepest - spread
    assert abs(math.log(fit.lr) + 7) <= width / (lrs - 1) / 2 + 1e-6


@settings(max_examples=30, deadline=None)
@given(
    slopes=st.tuples(st.floats(-3, 1), st.floats(-3, 1)),
    optimum=st.floats(0.3, 0.7),
    width=st.floats(3, 9),
    lrs=st.integers(7, 12),
)
def test_the_kink_of_two_straight_lines_is_found_and_held_by_the_interval(
    slopes: tuple[float, float], optimum: float, width: float, lrs: int
) -> None:
    x = np.linspace(0, width, lrs)
    u, (below, above) = x - optimum * width, np.exp(slopes)
    fit = fit_optimum(np.exp(x), 2.0 + np.where(u > 0, above * u, -below * u))
    u_fit = math.log(fit.lr) - optimum * width
    gap = width / (lrs - 1)
    assert max(above * u_fit, -below * u_fit) <= 0.1 * max(below, above) * gap
    assert fit.lr_low * 0.99 <= math.exp(optimum * width) <= fit.lr_high * 1.01


@settings(max_examples=30, deadline=None)
@given(
    drops=st.lists(st.floats(0.02, 0.3), min_size=3, max_size=6),
    cliff=st.floats(30, 100),
    scale=st.sampled_from([1.0, 1e6]),
)
def test_beside_a_cliff_no_gain_is_seen_where_the_loss_falls_faster_and_faster(
    drops: list[float], cliff: float, scale: float
) -> None:
    """A line through the LRs below the best one stays above it: no LR in between is better on a convex curve."""
    falling = 3.5 - np.cumsum([0.0, *sorted(drops)])
    loss = np.append(falling, [falling[-1] + cliff * max(drops), falling[-1] + 2 * cliff * max(drops)])
    lr = 1e-4 * 2.0 ** np.arange(loss.size)
    assert fit_optimum(lr, loss * scale).lr == pytest.approx(lr[falling.size - 1], rel=1e-9)


def test_a_cell_with_two_minima_has_an_interval_that_holds_both() -> None:
    lr = np.geomspace(1e-5, 1e-1, 9)
    fit = fit_optimum(lr, [3.0, 2.4, 2.02, 2.5, 2.9, 2.4, 2.0, 2.6, 3.1])
    assert fit.status is Status.TWO_MINIMA
    assert fit.lr_low <= lr[2]
    assert fit.lr_high >= lr[6]


@settings(max_examples=30, deadline=None)
@given(
    curvature=st.floats(-5, 2).map(math.exp),
    lrs=st.integers(4, 14),
    scale=st.sampled_from([1e-6, 1e6]),
    shift=st.sampled_from([0.0, -2.0, -7.0]),
)
def test_equal_losses_on_both_sides_of_a_minimum_stay_equal_in_other_units(
    curvature: float, lrs: int, scale: float, shift: float
) -> None:
    """Which of two equal losses is called the lower one, and what follows from it, is not left to rounding."""
    x = np.linspace(-4, 4, lrs)
    loss = 2.0 + np.minimum(curvature * x**2, 5 * curvature)
    one, other = fit_optimum(np.exp(x), loss), fit_optimum(np.exp(x), (loss + shift) * scale)
    assert one.status is other.status
    assert other.lr == pytest.approx(one.lr, rel=1e-6)
    assert other.lr_low == pytest.approx(one.lr_low, rel=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["noise", "ties", "walk", "zigzag"]), count=st.integers(3, 10)
)
def test_an_edge_is_where_the_lowest_losses_are(seed: int, kind: str, count: int) -> None:
    """What the message of an edge says, that the loss still falls there, is true of the losses."""
    rng = np.random.default_rng(seed)
    loss = {
        "noise": rng.standard_normal(count),
        "ties": np.round(rng.uniform(0, 3, count)),
        "walk": np.cumsum(rng.standard_normal(count)),
        "zigzag": np.arange(count) % 2 * rng.uniform(0.1, 1.0),
    }[kind]
    found = fit_optimum(np.geomspace(1e-4, 1e-1, count), loss)
    lowest = np.flatnonzero(loss == loss.min())
    if found.status is Status.EDGE_LOW:
        assert lowest.tolist() == list(range(lowest.size))
    if found.status is Status.EDGE_HIGH:
        assert lowest.tolist() == list(range(count - lowest.size, count))


@settings(max_examples=30, deadline=None)
@given(slopes=st.tuples(st.floats(-3, 1), st.floats(-3, 1)), place=st.integers(2, 8), gap=st.floats(0.2, 1.0))
def test_a_kink_at_an_lr_that_was_tried_is_found(slopes: tuple[float, float], place: int, gap: float) -> None:
    x, (below, above) = gap * np.arange(11), np.exp(slopes)
    u = x - x[place]
    fit = fit_optimum(np.exp(x), 2.0 + np.where(u > 0, above * u, -below * u))
    assert abs(math.log(fit.lr) - x[place]) <= 0.1 * gap
    assert fit.lr_low * 0.999 <= math.exp(x[place]) <= fit.lr_high * 1.001
