import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.cli.progress import SearchProgress
from raylr.events import StudyPlanned


def planned(done: set[str] | None = None) -> StudyPlanned:
    return StudyPlanned(
        grid_tokens=10_000, optimum=lambda size: None, params={"S": 100.0, "L": 400.0}, most_runs=4, most_tokens=4000.0,
        finished=(done or set()).__contains__,
    )  # fmt: skip


def test_without_a_plan_or_a_run_there_is_nothing_to_say() -> None:
    progress = SearchProgress()
    assert progress.words() == ""
    progress.plan = planned()
    assert progress.words() == ""


def test_what_is_left_is_the_most_that_the_searches_may_train_at_the_speed_so_far() -> None:
    progress = SearchProgress()
    progress.plan = planned()
    progress.started("a", "S", 0.0)
    assert progress.words() == "run 1 of at most 8"
    progress.trained("a", "S", 500, 5.0)
    # S: 3500 tokens at 10 ms each, L four times as many parameters: 4000 at 40 ms.
    assert progress.seconds_left() == pytest.approx(3500 * 0.01 + 4000 * 0.04)
    assert progress.words() == "run 1 of at most 8, at most 3 min left"
    progress.ended("a", "S", 1000, 10.0)
    progress.started("b", "S", 10.0)
    progress.started("c", "L", 10.0)
    progress.trained("c", "L", 500, 20.0)  # 20 ms each, two runs side by side
    assert progress.seconds_left() == pytest.approx((3000 * 0.01 + 3500 * 0.02) / 2)
    assert progress.spent == 1500


def test_a_size_whose_search_has_ended_needs_no_more() -> None:
    progress = SearchProgress()
    progress.plan = planned({"S"})
    progress.started("a", "S", 0.0)
    progress.ended("a", "S", 1000, 10.0)
    assert progress.words().startswith("run 1 of at most 5")
    assert progress.seconds_left() == pytest.approx(4000 * 0.04)


def test_what_was_measured_before_says_nothing_about_the_speed() -> None:
    progress = SearchProgress()
    progress.plan = planned()
    progress.ended("a", "S", 1000, 0.0)
    assert progress.words() == "run 1 of at most 8"
    progress.started("a", "S", 10.0)  # resumed from its checkpoint
    progress.trained("a", "S", 1500, 20.0)
    assert progress.seconds_left() == pytest.approx(2500 * 0.02 + 4000 * 0.08)


@given(events=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4000), st.booleans()), max_size=40))
@settings(max_examples=50)
def test_what_is_counted_on_the_way_is_what_counting_all_runs_gives(events: list[tuple[int, int, bool]]) -> None:
    progress, tokens = SearchProgress(), dict[int, int]()
    progress.plan = planned()
    for number, trained, began in events:
        size = "SL"[number % 2]
        if began:
            progress.started(str(number), size, 0.0)
        else:
            progress.trained(str(number), size, trained, 1.0)
        tokens[number] = max(tokens.get(number, 0), 0 if began else trained)
        assert progress.spent == sum(tokens.values())
        runs = [sum(one % 2 == place for one in tokens) for place in range(2)]
        assert progress.words().startswith(f"run {len(tokens)} of at most {sum(max(one, 4) for one in runs)}")
