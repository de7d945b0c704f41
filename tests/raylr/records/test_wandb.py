"""W&B's files, made from the description of their format: wandb itself is not installed where the tests run."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from wandb_files import framed, items, message

from raylr.records.tail import Tail
from raylr.records.wandb import history_record, whole_records


def history(**values: object) -> bytes:
    return message(2, items(values))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 70_000), max_size=6), st.lists(st.integers(0, 200_000), max_size=6))
def test_records_of_any_length_are_found_while_the_file_grows(tmp_path_factory, sizes, cuts) -> None:
    records = [history(loss=i, text="x" * size) for i, size in enumerate(sizes)]
    data, path = framed(records), tmp_path_factory.mktemp("wandb") / "run.wandb"
    tail, found = Tail(path, whole_records), []
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        path.write_bytes(data[:cut])
        found += tail.new()
    assert found == records


def test_history_is_flat_and_other_records_are_none() -> None:
    assert history_record(history(_step=3, loss=2.5)) == {"_step": 3, "loss": 2.5}
    nested = message(2, message(1, message(2, b"eval") + message(2, b"loss") + message(16, b"1.5")))
    assert history_record(nested) == {"eval/loss": 1.5}
    assert history_record(message(17, b"run")) is None
    assert history_record(b"\xff\xff") is None


def test_a_file_that_is_only_a_header_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(b":W&B")
    assert list(Tail(path, whole_records).new()) == []


def test_damage_ends_the_reading(tmp_path: Path) -> None:
    data = bytearray(framed([history(loss=1.0), history(loss=2.0), history(loss=3.0)]))
    data[data.rindex(b"2.0")] += 1
    records, used = whole_records(bytes(data), 0)
    assert (list(map(history_record, records)), used) == ([{"loss": 1.0}], len(data))
    assert whole_records(b"no run", 0) == ([], 6)
