import threading

import pytest
from figure_marks import EVERY_MARK

from raylr.errors import StorageError
from raylr.live import answer as module
from raylr.live.answer import Child, answer_of, blocks_of, sentence
from raylr.report.page import DescribedFigures


def test_sections_become_blocks_with_stable_ids():
    figures = DescribedFigures({"one": EVERY_MARK})
    pieces = ["<h2>The law</h2>", "<p>a</p>", f"<p>b</p>{figures('one')}<p>c</p>", "", "<h2>The law</h2><p>d</p>"]
    blocks = blocks_of(pieces, figures)
    assert [block.id for block in blocks] == [
        "the-law-1-0", "the-law-1-1", "the-law-1-2", "figure-one", "the-law-1-3", "the-law-2-0",
    ]  # fmt: skip
    assert blocks[3].figure is not None


def test_a_process_of_its_own_returns_an_answer_and_can_be_ended(whole):
    place, child = whole[0].directory, Child()
    there = child(place)
    assert "<b>" in there.answer
    assert there.sections[-1].id == "footer"
    assert any(block.figure for block in there.sections)
    threading.Timer(0.2, child.end).start()
    assert "status -9" in child(place).unread
    assert "status -9" in child(place).unread  # one that begins after the end


@pytest.mark.parametrize(
    ("error", "part"),
    [(StorageError("gone"), "unread"), (OSError(5, "bad", "/x"), "unread"), (ValueError("a"), "bug")],
)
def test_a_failure_is_returned(whole, monkeypatch, error, part):
    def broken(result):
        raise error

    monkeypatch.setattr(module, "content", broken)
    found = answer_of(whole[0].directory)
    assert getattr(found, part)
    assert bool(found.trace) == (part == "bug")
    assert found.answer == ""


def test_an_error_is_one_sentence():
    assert sentence(OSError(5, "bad", "/x")) == "cannot read /x: bad."
    assert sentence(StorageError("a\n b.")) == "a b."
