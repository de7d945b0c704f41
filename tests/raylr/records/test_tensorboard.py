"""Event files as torch's own writer (tensorboardX) makes them."""

import math
from pathlib import Path

import pytest

from raylr.records.tail import Tail
from raylr.records.tensorboard import event_record, whole_events

writers = pytest.importorskip("tensorboardX")


def test_scalars_are_read_while_the_file_grows(tmp_path: Path) -> None:
    with writers.SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("eval/loss", 2.5, 10)
        writer.add_text("note", "no scalar", 10)
        writer.add_scalar("eval/loss", math.nan, 20)
    (file,) = tmp_path.glob("*tfevents*")
    data, grown = file.read_bytes(), tmp_path / "grown"
    tail, found = Tail(grown, whole_events), []
    for end in range(0, len(data) + 1, 7):
        grown.write_bytes(data[:end])
        found += [record for record in map(event_record, tail.new()) if record]
    grown.write_bytes(data)
    found += [record for record in map(event_record, tail.new()) if record]
    assert found[0] == {"step": 10, "eval/loss": 2.5}
    assert found[1]["step"] == 20
    assert math.isnan(found[1]["eval/loss"])
    assert len(found) == 2


def test_damage_ends_the_reading(tmp_path: Path) -> None:
    assert whole_events(b"\xff" * 40, 0) == ([], 40)
    assert event_record(b"\xff" * 9) is None
