from pathlib import Path

import pytest

from raylr.errors import InputError
from raylr.trainables.data.problems import PLACES, SKIPPED, Problems, read_skipped, summary


def test_bad_stops_or_is_counted() -> None:
    with pytest.raises(InputError, match=r"a\.jsonl, line 3: is not JSON \(--on-error skip"):
        Problems("stop").bad(Path("a.jsonl"), "is not JSON", unit="line", place=3)
    problems = Problems("skip")
    problems.bad(Path("a.jsonl"), "is not JSON", unit="line", place=3)
    assert [(one.path, one.count, one.places) for one in problems.all] == [(Path("a.jsonl"), 1, [3])]
    with pytest.raises(InputError, match="on_error='ignore' must be 'stop' or 'skip'"):
        Problems("ignore")  # type: ignore[arg-type]


def test_counts_go_on_where_places_end() -> None:
    problems = Problems()
    for place in range(PLACES + 7):
        problems.skip(Path("a"), "is empty", unit="row", place=place)
    problems.skip(Path("b"), "is empty", unit="row", place=1)
    assert [(one.count, len(one.places)) for one in problems.all] == [(PLACES + 7, PLACES), (1, 1)]
    assert problems.counts() == {"is empty": PLACES + 8}
    assert summary(problems.all) == ["1,008 rows: is empty (a:0, b:1, …)"]


def test_the_list_is_written_and_read(tmp_path: Path) -> None:
    one, other = Problems(), Problems()
    one.skip(Path("内容/a.png"), "is binary")
    other.skip(Path("b.jsonl"), "is empty", unit="line", place=4)
    other.chose_key(Path("b.jsonl"), "body")
    both = one + other
    both.write(tmp_path / SKIPPED)
    assert read_skipped(tmp_path) == both.all
    assert both.notes() == other.notes() != []
    assert read_skipped(tmp_path / "none") == []
