import json
import shutil
from pathlib import Path

import pytest
from object_store import Bucket

from raylr.errors import CheckpointError, StudyError
from raylr.evaluation.queue import EvaluationQueue, name_of
from raylr.remote.copies import place_of


def checkpoint(folder: Path, step: int = 4) -> Path:
    """The files of a checkpoint, without a model."""
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": step}))
    (folder / "complete.json").write_text("{}")
    return folder


def test_what_was_added_may_vanish(tmp_path: Path) -> None:
    queue = EvaluationQueue(tmp_path)
    assert queue.waiting() == []
    assert not list(tmp_path.iterdir())
    made = checkpoint(tmp_path / "checkpoint_000001")
    queued = queue.add(made, "trial")
    assert queued == queue.add(made, "trial") == queue.folder_of("trial") / "step-0000000004"
    assert name_of(queued) == "trial/step-0000000004"
    shutil.rmtree(made)
    assert queue.waiting() == [queued]
    assert json.loads((queued / "state.json").read_text())["step"] == 4
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        queue.add(made, "trial")
    queue.remove(queued)
    queue.remove(queued)
    assert queue.waiting() == []


def test_checkpoints_wait_by_run_and_step_and_half_written_ones_do_not(tmp_path: Path) -> None:
    queue = EvaluationQueue(tmp_path)
    for run, step in (("b", 10), ("a", 10), ("a", 9)):
        checkpoint(queue.folder_of(run) / f"step-{step:010d}", step)
    (queue.folder_of("a") / "step-0000000011").mkdir()
    (queue.folder_of("a") / ".added-x").mkdir()
    assert [name_of(path) for path in queue.waiting()] == [
        "a/step-0000000009",
        "a/step-0000000010",
        "b/step-0000000010",
    ]


@pytest.mark.parametrize("run", ["../outside", "..", "", "/outside", "a/b"])
def test_names_of_runs_do_not_lead_out_of_the_queue(tmp_path: Path, run: str) -> None:
    made = checkpoint(tmp_path / "made")
    with pytest.raises(StudyError):
        EvaluationQueue(tmp_path / "study").add(made, run)


def test_links_out_of_the_queue_are_not_followed(tmp_path: Path) -> None:
    outside = checkpoint(tmp_path / "outside" / "step-0000000004")
    queue = EvaluationQueue(tmp_path / "study")
    (queue.folder / "b").mkdir(parents=True)
    (queue.folder / "a").symlink_to(outside.parent)
    (queue.folder / "b" / "step-0000000004").symlink_to(outside)
    assert queue.waiting() == []
    for run in ("a", "b"):
        with pytest.raises(StudyError):
            queue.remove(queue.folder / run / "step-0000000004")
    assert (outside / "state.json").is_file()


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"step": null}'])
def test_a_checkpoint_without_a_step_is_refused(tmp_path: Path, text: str) -> None:
    made = checkpoint(tmp_path / "made")
    (made / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"state\.json names no step"):
        EvaluationQueue(tmp_path).add(made, "a")


def test_a_queue_at_an_address_is_there(bucket: Bucket, tmp_path: Path) -> None:
    study = bucket.address("runs/a")
    queue, made = EvaluationQueue(study), checkpoint(tmp_path / "checkpoint_000001")
    assert queue.waiting() == []
    queued = queue.add(made, "trial")
    assert queued == queue.add(made, "trial") == queue.folder_of("trial") / "step-0000000004"
    for name in ("b/step-0000000003/state.json", "b/other/complete.json", "complete.json", "a/b/step-1/complete.json"):
        bucket.put(f"runs/a/waiting/{name}", b"{}")
    with bucket.machine(tmp_path / "other"):
        queue = EvaluationQueue(study)
        (there,) = queue.waiting()
        assert place_of(there) == f"{study}/waiting/trial/step-0000000004"
        assert name_of(there) == name_of(queued)
        queue.remove(there)
        assert queue.waiting() == []
    assert not [name for name in bucket.names("runs/a/waiting") if "/trial/" in name]
