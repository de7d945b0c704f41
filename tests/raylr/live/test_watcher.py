import json
import shutil
import threading
import time

import made_modules
import pytest
from growing_study import running
from made_study import contents, spec_of
from page_tags import balanced

from raylr.errors import DamagedError, StorageError, StudyError
from raylr.live import watcher as module
from raylr.live.answer import Found
from raylr.live.board import Board
from raylr.live.watcher import AREAS, Watcher
from raylr.remote.storage import Storage
from raylr.store.places import opened
from raylr.studies import open_study


def watched(folder):
    board = Board(AREAS)
    return Watcher(folder, board), board


def html_of(board, name):
    return board.news()["blocks"].get(name, {}).get("html", "")


def test_a_finished_study_is_shown_whole_and_nothing_is_written(finished):
    finished.end("the answer")
    before = contents(finished.directory)
    watcher, board = watched(finished.directory)
    watcher.look()
    assert "Finished" in html_of(board, "state")
    assert "being computed" in html_of(board, "state")
    watcher.fit()
    watcher.look()
    news = board.news()
    assert "The answer was computed at" in html_of(board, "state")
    assert "<b>" in html_of(board, "answer")
    assert "heading" not in news["order"]
    assert {"figure-figure-2-law", "figure-check", "log"} <= set(news["order"])
    assert contents(finished.directory) == before
    for name, block in news["blocks"].items():
        balanced(block["html"])
        assert ("figure" in block) == name.startswith("figure-")
    assert len(json.dumps(news)) < 3_000_000


def test_a_study_is_followed_from_an_empty_folder_to_its_end(texts, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    watcher, board = watched(folder)
    watcher.look()
    watcher.fit()
    assert "There is no study" in html_of(board, "state")
    with running(spec_of(texts), folder, monkeypatch) as (gate, thread):
        gate.let(0, thread)
        watcher.look()
        watcher.fit()
        assert "Running" in html_of(board, "state")
        assert "before its first measurement" in html_of(board, "state")
        gate.let(3, thread)
        watcher.look()
        figure = board.news()["blocks"]["figure-growing"]["figure"]
        watcher.fit()
        watcher.look()
        assert "In training" in html_of(board, "open-runs")
        gate.let(40, thread)
        watcher.look()
        assert board.news()["blocks"]["figure-growing"]["figure"] != figure
        assert "data-clock" in html_of(board, "log")
        assert "more have come since" in html_of(board, "state") or "No answer yet" in html_of(board, "state")
        watcher.fit()
        watcher.look()
        assert "If it ended now" in html_of(board, "heading")
        gate.open()
        thread.join()
        watcher.look()
    assert "Stopped" in html_of(board, "state")  # no ending was written
    open_study(folder).end("the answer")
    watcher.look()
    assert "Finished" in html_of(board, "state")
    assert "Computed before the last measurements" in html_of(board, "heading")
    watcher.fit()
    watcher.look()
    assert "Finished" in html_of(board, "state")
    assert html_of(board, "heading") == ""
    assert "sizes" not in board.news()["order"]


def test_ends_of_runs_have_no_time_where_the_page_was_closed(finished, monkeypatch):
    board = Board(AREAS)
    watcher = Watcher(finished.directory, board, compute=lambda place: Found(answer="a"))
    row = finished.trials.read().to_pylist()[0]
    watcher.look()
    finished.trials.append([row | {"trial": "while-closed"}])
    monkeypatch.setattr("raylr.live.watcher.GAP_SECONDS", 0.0)
    watcher.look()
    assert "data-clock" not in html_of(board, "log")
    finished.trials.append([row | {"trial": "while-open"}])
    monkeypatch.setattr("raylr.live.watcher.GAP_SECONDS", 60.0)
    watcher.look()
    assert html_of(board, "log").count("data-clock") == 1


def test_nothing_is_fitted_again_without_a_change_also_not_after_tables_were_merged(finished):
    made = []

    def compute(place):
        made.append(len(finished.evaluations))
        return Found(answer="a")

    watcher = Watcher(finished.directory, Board(AREAS), compute=compute)
    watcher.fit()
    watcher.fit()
    assert len(made) == 1
    rows = finished.evaluations.read().to_pylist()
    finished.evaluations.append([rows[0] | {"trial": "new"}])
    watcher.fit()
    assert made == [len(rows), len(rows) + 1]
    finished.evaluations.compact()
    watcher.fit()
    assert len(made) == 2


def test_damage_is_said_what_was_read_stays_and_it_recovers(finished):
    watcher, board = watched(finished.directory)
    watcher.look()
    watcher.fit()
    fragment = finished.evaluations.fragments()[0]
    damage = {"torn": (fragment, 100), "empty": (fragment, 0), "spec": (finished.directory / "spec.yaml", 0),
              "gone": (finished.directory / "study.json", None)}  # fmt: skip
    for kind, (file, left) in damage.items():
        whole = file.read_bytes()
        file.unlink() if left is None else file.write_bytes(whole[:left])
        if file is fragment:  # else nothing is read again
            finished.trials.append([finished.trials.read().to_pylist()[0] | {"trial": kind}])
        watcher.look()
        watcher.fit()
        watcher.look()
        assert "Cannot read the study" in html_of(board, "state"), kind
        assert "<b>" in html_of(board, "answer")
        file.write_bytes(whole)
        watcher.look()
        assert "Cannot read" not in html_of(board, "state")


def test_a_bug_is_said_printed_once_and_the_page_goes_on(finished, monkeypatch, capsys):
    watcher, board = watched(finished.directory)

    def broken(study):
        raise ZeroDivisionError("a <bug>")

    monkeypatch.setattr("raylr.live.answer.content", broken)
    monkeypatch.setattr(module, "state_of", broken)
    watcher.look()
    watcher.look()
    assert "bug: ZeroDivisionError: a &lt;bug&gt;" in html_of(board, "state")
    watcher.fit()
    monkeypatch.undo()
    watcher.look()
    assert "ZeroDivisionError" in html_of(board, "state")  # of the fit
    assert capsys.readouterr().err.count("Traceback") == 1


def test_a_folder_that_is_none_of_a_study_is_refused_at_once(tmp_path, finished):
    with pytest.raises(StudyError, match="there is no"):
        watched(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("x")
    with pytest.raises(StudyError, match="holds no study"):
        watched(tmp_path / "other")
    (finished.directory / "study.json").write_text("{")
    with pytest.raises(DamagedError):
        watched(finished.directory)


def test_a_transfer_study_and_one_of_modules_are_shown(carried, corpus, tmp_path):
    study, _ = carried
    modules = made_modules.study_of(made_modules.spec_of(corpus), tmp_path / "modules")
    modules.run()
    for folder, heading in ((study.directory, "The proxy"), (tmp_path / "modules", "The modules")):
        watcher, board = watched(folder)
        watcher.look()
        watcher.fit()
        watcher.look()
        texts_of = " ".join(block["html"] for block in board.news()["blocks"].values())
        assert heading in texts_of
        assert "So far" in texts_of


def test_it_looks_only_while_somebody_asks(finished, monkeypatch):
    watcher, _ = watched(finished.directory)
    looks = []
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(module, "WATCHED_SECONDS", 0.1)
    monkeypatch.setattr(Watcher, "look", lambda self: looks.append(1))
    monkeypatch.setattr(Watcher, "fit", lambda self: None)
    watcher.start()
    try:
        until(lambda: looks)
        time.sleep(0.2)
        count = len(looks)
        time.sleep(0.1)
        assert len(looks) <= count + 1
        watcher.requested()
        until(lambda: len(looks) > count + 1)
    finally:
        watcher.stop()


def until(true):
    for _ in range(1000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError


def test_a_copy_under_another_name_has_the_same_blocks(whole, tmp_path):
    shutil.copytree(whole[0].directory, tmp_path / "copy")
    watcher, board = watched(tmp_path / "copy")
    watcher.look()
    assert board.news()["title"] == "tiny"


def test_no_thread_is_left_whenever_it_is_stopped(finished, monkeypatch):
    begun, go, fitting = threading.Event(), threading.Event(), threading.Event()

    def compute(place):
        fitting.wait(1)  # longer than it takes to see whether `stop` waits
        return Found(answer="a")

    watcher = Watcher(finished.directory, Board(AREAS), compute=compute)
    look = watcher.look

    def slow():
        begun.set()
        go.wait(20)
        look()

    monkeypatch.setattr(watcher, "look", slow)
    before = set(threading.enumerate())
    watcher.start()
    assert begun.wait(20)
    threading.Timer(0.2, go.set).start()  # in the midst of `stop`: the fit begins after that
    watcher.stop()
    assert {one for one in set(threading.enumerate()) - before if not isinstance(one, threading.Timer)} == set()


def test_a_study_at_an_address_is_shown(there, bucket, monkeypatch):
    folder = opened(there)
    shutil.rmtree(folder)  # an empty machine, too
    watcher, board = watched(opened(there))
    assert board.title == "tiny"
    before = bucket.names()
    watcher.look()
    watcher.fit()
    watcher.look()
    assert "Finished" in html_of(board, "state") or "Stopped" in html_of(board, "state")
    assert "The answer was computed at" in html_of(board, "state")
    assert "cache/copies" not in json.dumps(board.news())
    assert bucket.names() == before
    none, empty = watched(opened(bucket.address("runs/none")))
    none.look()
    assert f"There is no study in {bucket.address('runs/none')} yet" in html_of(empty, "state")
    monkeypatch.setattr(Storage, "listed", lambda *_, **__: (_ for _ in ()).throw(StorageError(f"{folder} is away")))
    watcher.look()
    assert f"Cannot read the study</b>: {there} is away." in html_of(board, "state")
