"""Studies in an object store: the same as in a folder, from one machine or from several."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from light_trial import POSITIONS, light_trial
from made_study import no_executor, same_study, spec_of, study_of
from object_store import Bucket
from serial_executor import SerialExecutor
from tiny_runs import BATCH, run

from raylr.cli.app import main
from raylr.errors import StorageError, StudyError, StudyLockedError
from raylr.execution.jobs import shared_folder
from raylr.remote import lease, storage
from raylr.remote.storage import Storage
from raylr.spec import StudySpec
from raylr.spec.files import dump_spec
from raylr.state import state_of
from raylr.store.check import check_study, set_aside
from raylr.store.folder import open_folder
from raylr.study import FittingStudy
from raylr.trainables import Corpus
from raylr.trainables.training.checkpoint import RunFolder

OWN = """
name: own
command: {run: [python, train.py, --lr, "{lr}", --tokens, "{tokens}"]}
sizes: {S: {params: 100k}}
train: {batch_tokens: 512, schedule: constant}
budgets: [24k]
lr: [3e-4, 1e-1]
"""


ONE_SIZE = {"S": {"hidden_size": 8, "expert_size": 8}}


class StoppedError(Exception):
    """The driver is killed."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)


@pytest.fixture
def address(bucket: Bucket) -> str:
    return bucket.address("runs/tiny")


def command_line(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code


def stop_after(reports: int) -> SerialExecutor:
    left = [reports]

    def before(job, tokens):
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError

    return SerialExecutor(before)


def test_stopped_it_goes_on_from_an_empty_machine_with_the_same_law(
    whole, texts: Path, bucket: Bucket, address: str, tmp_path: Path
) -> None:
    want, result = whole
    with pytest.raises(StoppedError):
        study_of(spec_of(texts), address, stop_after(40)).run()
    assert bucket.names("runs/tiny/.lock") == []  # given back
    trained = len(FittingStudy.open(address).evaluations)
    with bucket.machine(tmp_path / "other"):
        executor = SerialExecutor()
        study = study_of(spec_of(texts), address, executor)
        found = study.run()
        study.end("the answer\n")
        assert len(want.evaluations) - trained <= len(executor.trained) < len(want.evaluations)
        assert found.prediction == result.prediction
        same_study(study, want)
    law = bucket.get("runs/tiny/law.json")
    assert law == (want.directory / "law.json").read_bytes()
    with bucket.machine(tmp_path / "third"):
        again = FittingStudy.open(address)
        assert again.ending() == "the answer\n"
        assert (again.directory / "law.json").read_bytes() == law
        assert check_study(address).whole


@pytest.mark.slow
@pytest.mark.usefixtures("shared_cluster")
def test_workers_of_ray_write_to_it_from_other_machines(
    texts: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were started before, have a cache of their own, and know the store from the address alone."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 90.0)  # this process waits for others
    monkeypatch.setattr("raylr.stages.train_trial", light_trial)
    address = bucket.full_address("runs/tiny")
    spec = spec_of(texts, sizes=ONE_SIZE, budgets=[8192], search={"max_trials": 3}, target=None)
    study = FittingStudy(spec, address)
    study.run()
    study.end("the answer\n")
    law = bucket.get("runs/tiny/law.json")
    assert law == (study.directory / "law.json").read_bytes()
    parts = {name.split("/")[2] for name in bucket.names("runs/tiny")}
    assert parts >= {"corpus", "evaluations", "trials", "tune", "ending.json"}
    reached = {row["trial"]: int(row["tokens"]) for row in study.trials.read().to_pylist()}
    written = {name.split("/")[3]: int(bucket.get(name)) for name in bucket.names(f"runs/tiny/{POSITIONS}")}
    assert written.keys() == reached.keys()
    assert all(written[run] >= tokens for run, tokens in reached.items())  # one that is truncated goes on for a moment
    assert not (study.directory / POSITIONS).exists()  # the workers have another working copy
    with bucket.machine(tmp_path / "other"):
        again = FittingStudy(spec, address, executor=no_executor)
        assert again.ending() == "the answer\n"
        again.run()
        assert again.evaluations.read().equals(study.evaluations.read())
        assert again.trials.read().equals(study.trials.read())
    assert bucket.get("runs/tiny/law.json") == law


class Interrupting:
    """The store's file system. In one of its writes the main thread is interrupted twice before the object is there."""

    type_name = "s3"

    def __init__(self, files: Any, name: str) -> None:
        self.files, self.name, self.once, self.done = files, name, threading.Lock(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def open_output_stream(self, name: str) -> Any:
        stream = self.files.open_output_stream(name)
        if self.name in name and self.once.acquire(blocking=False):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
            self.done.set()
        return stream


@pytest.mark.parametrize("name", ["study.json", "spec.yaml", "corpus/", "evaluations/", "trials/", "law.json"])
def test_interrupted_in_a_write_the_store_and_the_copy_agree_at_the_next_start(
    whole, texts: Path, bucket: Bucket, address: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Ctrl-C in the middle of a write, and again: whatever became of it, nothing half is left, and the law is equal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        files = Storage(address).file_system
        interrupting = Interrupting(files, name)
        monkeypatch.setattr(Storage, "file_system", interrupting)
        with pytest.raises(KeyboardInterrupt):
            study_of(spec_of(texts), address).run()
        assert interrupting.done.is_set()  # the object that was being written has been waited for
        monkeypatch.setattr(Storage, "file_system", files)
    finally:
        signal.signal(signal.SIGINT, before)
    assert bucket.names("runs/tiny/.lock") == []
    study = study_of(spec_of(texts), address)
    own = [name for name in bucket.names("runs/tiny") if not name.startswith("runs/tiny/corpus/")]
    here = {path.relative_to(study.directory).as_posix(): path for path in study.directory.rglob("*") if path.is_file()}
    for one in own:
        assert here[one.removeprefix("runs/tiny/")].read_bytes() == bucket.get(one)
    tables = {one for one in here if one.endswith(".parquet")}
    assert tables == {one.removeprefix("runs/tiny/") for one in own if one.endswith(".parquet")}
    study.run()
    same_study(study, whole[0])


def test_a_second_driver_is_refused_wherever_it_runs(texts: Path, bucket: Bucket, address: str, tmp_path: Path) -> None:
    seen: list[str] = []

    def before(job, tokens):
        if seen:
            return
        for cache in ("cache", "other"):  # this machine, and another one
            with bucket.machine(tmp_path / cache):
                with pytest.raises(StudyLockedError, match="another process is running the study in s3://"):
                    study_of(spec_of(texts), address).run()
                seen.append(state_of(FittingStudy.open(address))["state"])

    study_of(spec_of(texts), address, SerialExecutor(before)).run()
    assert seen == ["running", "running"]
    assert state_of(FittingStudy.open(address))["state"] == "stopped"


def test_a_driver_that_lost_its_lease_writes_nothing_more(
    texts: Path, bucket: Bucket, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(job, tokens):
        for name in bucket.names("runs/tiny/.lock"):
            if len(bucket.names("runs/tiny/trials")):
                bucket.delete(name)
                monkeypatch.setattr(lease.Lease, "_claims", lambda self: set())
                monkeypatch.setattr(lease, "now", lambda: 1e12)

    with pytest.raises(StorageError, match=r"the lease of s3://.* was lost"):
        study_of(spec_of(texts), address, SerialExecutor(before)).run()


def test_what_is_measured_while_the_storage_is_away_is_kept(
    whole, texts: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = Storage.put, [0]

    def put(self, name, content, *, retry=True):
        if name.startswith("evaluations/") and away[0] < 1:
            away[0] += 1
            raise StorageError("the storage has not answered for 60 s")
        real(self, name, content, retry=retry)

    monkeypatch.setattr(Storage, "put", put)
    study = study_of(spec_of(texts), address)
    with pytest.raises(StorageError, match="has not answered"):
        study.run()
    study = study_of(spec_of(texts), address)
    study.run()
    same_study(study, whole[0])


@pytest.mark.parametrize("change", ["flipped", "gone", "torn", "empty"])
def test_a_damaged_object_is_found_as_a_damaged_file_is(
    there: str, bucket: Bucket, texts: Path, tmp_path: Path, change: str
) -> None:
    assert check_study(there).whole  # the working copy has the fragment, whole
    name = next(name for name in bucket.names("runs/tiny/evaluations"))
    data = bytearray(bucket.get(name))
    data[len(data) // 2] ^= 1
    if change == "gone":
        bucket.delete(name)
    else:
        bucket.put(name, {"flipped": bytes(data), "torn": bytes(data[:99]), "empty": b""}[change])
    found = check_study(there)
    assert not found.whole
    with bucket.machine(tmp_path / "other"):
        if change != "gone":
            with pytest.raises(StorageError, match="is damaged"):
                FittingStudy.open(there).result()
            assert len(set_aside(there)) == 1
            assert any(name.startswith("runs/tiny/damaged/") for name in bucket.names("runs/tiny"))
        study = study_of(spec_of(texts), there)
        study.run()
        assert check_study(there).whole


def test_a_damaged_working_copy_is_fetched_again(there: str, whole) -> None:
    study = FittingStudy.open(there)
    for file in study.directory.glob("evaluations/*.parquet"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    same_study(study, whole[0])
    shutil.rmtree(study.directory)
    same_study(FittingStudy.open(there), whole[0])


def test_a_finished_study_returns_its_answer_at_once(
    there: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(dump_spec(spec_of(texts)))
    command_line("search", str(tmp_path / "spec.yaml"), "--out", there)
    assert f"{there} is finished; nothing was run." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "s3://no-such-bucket/x"], "there is no such bucket"),
        (["status", "s3://BUCKET/none"], "/none holds no study"),
        (["search", "SPEC", "--out", "abfss://a@b/c"], "raylr writes to file systems and to addresses of s3, gs, hdfs"),
        (["search", "SPEC", "--out", "s3://key:hidden@b/c"], "no credentials in an address"),
        (["fit", "s3://BUCKET/none", "--out", "s3://BUCKET/law.json"], "/none holds no study"),
        (["data", "SPEC", "--out", "s3://BUCKET/corpus"], "on a file system"),
        (["export", "s3://BUCKET/none", "--hf", "s3://BUCKET/hf"], "on a file system"),
    ],
)
def test_wrong_addresses_are_one_sentence(
    words: list[str], said: str, bucket: Bucket, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.0)
    (tmp_path / "SPEC").write_text(dump_spec(spec_of(texts)))
    with pytest.raises(SystemExit):
        main([word.replace("BUCKET", bucket.name) for word in words])
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert "hidden" not in error
    assert not [path for path in tmp_path.iterdir() if ":" in path.name]


def test_another_folder_in_the_store_is_not_taken_for_a_study(bucket: Bucket, texts: Path, address: str) -> None:
    bucket.put("runs/tiny/mine/x", b"1")
    with pytest.raises(StudyError, match="is not empty and holds no study"):
        study_of(spec_of(texts), address).run()


def test_a_study_with_another_trainer_is_refused_before_anything_is_trained(address: str, bucket: Bucket) -> None:
    data = yaml.safe_load(OWN)
    spec = StudySpec.model_validate(data)
    with pytest.raises(StudyError, match=r"a study with another trainer.*is kept on a file system"):
        FittingStudy(spec, address)
    assert bucket.names() == []


def test_a_job_may_have_an_address(bucket: Bucket) -> None:
    assert shared_folder(bucket.full_address("a")) == bucket.full_address("a")


def test_a_corpus_is_fetched_once(bucket: Bucket, corpus: Corpus, tmp_path: Path) -> None:
    for path in corpus.path.iterdir():
        bucket.put(f"corpora/c/{path.name}", path.read_bytes())
    found = Corpus.open(bucket.address("corpora/c"))
    assert (found.train == corpus.train).all()
    times = {path: path.stat().st_mtime_ns for path in found.path.iterdir()}
    assert {path: path.stat().st_mtime_ns for path in Corpus.open(bucket.address("corpora/c")).path.iterdir()} == times


def test_a_run_goes_on_from_its_checkpoint_on_another_machine(bucket: Bucket, corpus: Corpus, tmp_path: Path) -> None:
    """The rows are those of a run in a folder, bit for bit; a damaged checkpoint is passed over."""
    batch, place = BATCH, bucket.address("checkpoints/run")
    whole = run(corpus.path, steps=6, eval_at=[batch * 2, batch * 4, batch * 6], run_dir=tmp_path / "own")
    for stop in (2, 4):
        with RunFolder(place).alone():
            run(corpus.path, steps=6, eval_at=[batch * 2, batch * 4, batch * 6], stop_at=batch * stop, run_dir=place)
    assert not list(RunFolder(place).path.glob("[a-z]*"))  # nothing stays on the machine
    steps = sorted({Path(name).parts[2] for name in bucket.names("checkpoints/run")})
    assert steps == ["step-0000000002", "step-0000000004"]
    name = next(name for name in bucket.names(f"checkpoints/run/{steps[1]}") if name.endswith(".pt"))
    bucket.put(name, bucket.get(name)[:-1])
    with bucket.machine(tmp_path / "other"):
        again = run(corpus.path, steps=6, eval_at=[batch * 2, batch * 4, batch * 6], run_dir=place)
    assert [(row["tokens"], row["loss"]) for row in again] == [(row["tokens"], row["loss"]) for row in whole]


def test_no_credentials_are_written(texts: Path, bucket: Bucket, address: str, capfd) -> None:
    study = study_of(spec_of(texts), address)
    study.run()
    written = b"".join(bucket.get(name) for name in bucket.names())
    written += b"".join(path.read_bytes() for path in study.directory.rglob("*") if path.is_file())
    written += "".join(capfd.readouterr()).encode()
    assert b"secret-of-the-tests" not in written
    assert b"KEYOFTHETESTS" not in written


def test_an_opened_study_says_its_address(there: str) -> None:
    assert open_folder(there).place == there
