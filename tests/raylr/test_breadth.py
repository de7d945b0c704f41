"""How broad a study's search is: from the spec or the room there is, noted, and used."""

import json
from collections import deque
from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import spec_of
from serial_executor import report_of

from raylr.analysis.across import AT_ONCE
from raylr.breadth import breadth_of, room_of, settle_breadth
from raylr.events import Listener
from raylr.searches import Breadth, breadth_for
from raylr.stages import Stages
from raylr.store.folder import StudyFolder

TWELVE = {f"S{i:02}": {"hidden_size": 8 * (i + 1), "expert_size": 8} for i in range(12)}


class Turns:
    """Trains up to `room` jobs side by side, report by report, in turn (or the newest first)."""

    def __init__(self, room, *, newest=False):
        self.room, self.newest, self.most, self.trained = room, newest, 0, []

    def execute(self, trainable, work):
        running = deque()
        while running or not work.finished:
            while len(running) < self.room and (job := work.next()) is not None:
                work.started(job)
                running.append((job, iter(job.config["eval_at"])))
            self.most = max(self.most, len(running))
            job, points = running.pop() if self.newest else running.popleft()
            tokens = next(points, None)
            if tokens is None:
                self.trained.append(job.run.name)
                work.end(job)
                continue
            report = report_of_size(job, tokens)
            if work.report(job, report) is not None:
                self.trained.append(job.run.name)
                work.end(job)
            else:
                running.append((job, points))


def report_of_size(job, tokens):
    """The made-up law knows three sizes."""
    return report_of(replace(job, size="SML"[int(job.size[1:]) // 4]), tokens)


class Heard(Listener):
    def __init__(self):
        self.said = []

    def message(self, text):
        self.said.append(text)


def search(spec, path, executor):
    folder, heard = StudyFolder(path, spec), Heard()
    with folder.locked():
        Stages(folder, heard, lambda callbacks: executor).search()
    return folder, heard.said


def twelve(texts, **resources):
    return spec_of(texts, sizes=TWELVE, target=None, resources=resources, search={"max_trials": 3})


def four(texts, **resources):
    return twelve(texts, **resources).model_copy(update={"sizes": dict(list(TWELVE.items())[::3])})


def test_three_settings_first_with_deep_rounds_then_three_times_as_many_as_are_known():
    assert Breadth.for_room(1, 12) == Breadth.for_room(3, 12) == Breadth()
    assert Breadth.for_room(12, 12) == Breadth.for_room(64, 12) == Breadth(settings=(3, 9), runs=(4, 1), lead=4)
    assert Breadth.for_room(256, 500).settings == (3, 9, 36, 144, 256, 52)
    assert Breadth.for_room(256, 500).runs == (4, 1, 1, 1, 1, 1)
    assert Breadth.for_room(64, 3) == Breadth(settings=(3,), runs=(21,))
    assert Breadth.for_room(4, 1).runs == (4,)


def test_searches_that_say_nothing_to_others_begin_all_at_once(texts):
    assert Breadth.for_room(23, 12, groups=False) == Breadth(settings=(12,), runs=(1,))
    assert Breadth.for_room(64, 12, groups=False) == Breadth(settings=(12,), runs=(5,))
    assert breadth_for(twelve(texts), 64).settings == (3, 9)
    surface = spec_of(texts, sizes=TWELVE, target=None, search={"method": "surface"})
    assert breadth_for(surface, 64) == Breadth(settings=(12,), runs=(5,))


@given(room=st.integers(1, 600), settings_=st.integers(1, 600))
def test_no_group_has_more_than_there_is_room_for_or_than_is_known(room, settings_):
    found = Breadth.for_room(room, settings_)
    known = 0
    for number, (beside, runs) in enumerate(zip(found.settings, found.runs, strict=True)):
        assert beside * runs <= max(room, AT_ONCE) or settings_ < AT_ONCE
        assert beside <= (max(3 * known, AT_ONCE))
        assert runs == 1 or number == 0
        known += beside
    assert len(found.settings) == 1 or known == settings_


def test_twelve_sizes_with_room_for_twelve(texts, tmp_path):
    executor = Turns(12)
    folder, _ = search(twelve(texts, concurrency=12), tmp_path / "study", executor)
    assert executor.most == 12
    assert folder.side_by_side == ((3, 9), (4, 1), 4)


def test_what_is_trained_depends_on_the_breadth_and_not_on_what_runs_side_by_side(texts, tmp_path):
    spec, trained = four(texts, concurrency=4), []
    for number, executor in enumerate((Turns(1), Turns(4), Turns(3, newest=True))):
        search(spec, tmp_path / str(number), executor)
        trained.append(sorted(executor.trained))
    assert trained[0] == trained[1] == trained[2]


def test_a_search_goes_on_as_it_began_where_there_is_other_room(texts, tmp_path, monkeypatch):
    class Ends(Exception):
        pass

    class Killed(Turns):
        def execute(self, trainable, work):
            monkeypatch.setattr(work, "started", self.count)
            super().execute(trainable, work)

        def count(self, job):
            if len(self.trained) >= 5:
                raise Ends

    whole, first, second = Turns(4), Killed(4), Turns(2)
    search(four(texts, concurrency=4), tmp_path / "whole", whole)
    with pytest.raises(Ends):
        search(four(texts, concurrency=4), tmp_path / "study", first)
    folder, said = search(four(texts), tmp_path / "study", second)  # the spec no longer says how many
    assert folder.side_by_side == ((3, 1), (1, 1), 4)
    assert not said
    assert sorted({*first.trained, *second.trained}) == sorted(whole.trained)
    assert not set(first.trained) & set(second.trained)


def test_another_concurrency_later_is_answered_in_a_sentence(texts, tmp_path):
    narrow, broad = Turns(1), Turns(4)
    search(four(texts, concurrency=1), tmp_path / "study", narrow)
    folder, said = search(four(texts, concurrency=4), tmp_path / "study", broad)
    assert folder.side_by_side == ((3,), (1,), None)
    assert not broad.trained
    assert "began with 3 sizes side by side" in said[-1]


def test_room_that_no_spec_names_is_for_sizes_and_not_for_more_runs(texts, tmp_path):
    for named, breadth in ((None, ((3, 9), (1,), 4)), (64, ((3, 9), (4, 1), 4))):
        folder = StudyFolder(tmp_path / str(named), twelve(texts, concurrency=named))
        with folder.locked():
            settle_breadth(folder, Heard(), lambda: 64)
        assert folder.side_by_side == breadth


def test_a_search_that_an_earlier_version_began_goes_on_as_it_was(texts, tmp_path):
    folder = StudyFolder(tmp_path / "study", twelve(texts))
    with folder.locked():
        settle_breadth(folder, Heard(), lambda: 64)
        about = tmp_path / "study" / "study.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {"side_by_side": [12, 5]}))
        assert breadth_of(folder) == Breadth(settings=(12,), runs=(5,))
        assert str(breadth_of(folder)) == "12 sizes side by side and up to 5 new learning rates of each at a time"


@pytest.mark.usefixtures("shared_cluster")
def test_the_room_is_what_the_cluster_has(texts):
    with ExitStack() as held:
        assert room_of(twelve(texts), held) == 2
    with ExitStack() as held:
        assert room_of(twelve(texts, cpus=2), held) == 1
