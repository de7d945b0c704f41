"""Studies on a made-up loss, without Ray and torch: what is kept, what is read, what is refused. The real ones, with
processes that are killed, are in `test_study_runs`."""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from serial_executor import SerialExecutor

from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.runs import RunEnd
from raylr.cli.app import main
from raylr.errors import DamagedError, InputError, StorageError, StudyError, StudyLockedError, TrainingError
from raylr.report.html import write_report
from raylr.spec import StudySpec
from raylr.stages import Stages
from raylr.store.check import check_study, set_aside
from raylr.study import FittingStudy

SPEC = """
name: tiny
corpus: {vocab_size: 300}
model: {heads: 2, kv_heads: 1, head_dim: 8, experts: 4, top_k: 2, layers: 1}
sizes:
  S: {hidden_size: 8, expert_size: 8}
  M: {hidden_size: 16, expert_size: 16}
train: {seq_len: 32, batch_tokens: 512, warmup_tokens: 4096, validation_tokens: 512, repeat_data: true}
budgets: [20k, 40k]
lr: {low: 3e-4, high: 1e-1}
search: {max_trials: 4}
target: {name: XL, model: {hidden_size: 24, expert_size: 24}, tokens: 50k, check: [0.333, 1, 3]}
"""
SURFACE = {"search": {"method": "surface", "max_trials": 5, "rungs": [0.25, 0.5, 1], "budget": 2}, "target": None}


def spec_of(texts, **changes):
    data = yaml.safe_load(SPEC)
    data["corpus"]["files"] = [str(texts)]
    return StudySpec.model_validate(data | changes)


def study_of(spec, folder, executor=None):
    made = executor or SerialExecutor()
    return FittingStudy(spec, folder, executor=lambda callbacks: made)


def no_executor(callbacks):
    raise AssertionError("something was trained")


def contents(folder):
    """Every file with its content and time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def same_study(one, other):
    """Whether two studies measured the same."""
    for a, b in ((one.evaluations, other.evaluations), (one.trials, other.trials)):
        rows = [
            sorted((json.dumps(row, sort_keys=True) for row in table.read().to_pylist()), key=str) for table in (a, b)
        ]
        assert rows[0] == rows[1]
    laws = [LRLaw.from_json((study.directory / "law.json").read_text()) for study in (one, other)]
    assert laws[0] == laws[1]


@pytest.fixture(scope="module")
def whole(texts, tmp_path_factory):
    """A finished study; not to be changed."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    study = study_of(spec_of(texts), folder)
    result = study.run()
    study.end("the answer\n")
    return study, result


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of it."""
    shutil.copytree(whole[0].directory, tmp_path / "tiny")
    return FittingStudy.open(tmp_path / "tiny")


# -- what a study keeps --


def test_a_study_ends_with_a_law_a_prediction_and_its_check(whole):
    study, result = whole
    assert set(result.fit.surfaces) == {"S", "M"}
    assert result.prediction.params == result.spec.target_model().params("total")
    assert [run.lr / result.prediction.lr for run in result.check.runs] == pytest.approx([0.333, 1, 3], rel=1e-4)
    assert 0 < result.cost.token_share < 1
    assert LRLaw.from_json((study.directory / "law.json").read_text()) == result.fit.law


def test_every_evaluation_is_in_the_table_once(whole):
    study, _ = whole
    rows = study.evaluations.read().to_pylist()
    assert len({(row["trial"], row["tokens"]) for row in rows}) == len(rows)
    ends = {row["trial"]: row for row in study.trials.read().to_pylist()}
    assert {row["trial"] for row in rows} == set(ends)
    for trial, end in ends.items():
        own = [row for row in rows if row["trial"] == trial]
        assert len(own) == end["evaluations"]
        assert max(row["tokens"] for row in own) == end["tokens"]
        RunEnd(end["end"])


def test_the_tables_are_one_fragment_each_after_a_stage(whole):
    study, _ = whole
    for table in (study.evaluations, study.trials):
        assert len(list(table.folder.iterdir())) == 1


def test_what_a_run_reports_is_kept_and_lr_is_the_peak(whole):
    study, _ = whole
    for row in study.evaluations.read().to_pylist():
        assert row["made_up"] == pytest.approx(row["tokens"] / 7)
        assert row["current_lr"] == pytest.approx(0.5 * row["lr"])
        assert row["seed"] == 0


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_the_law_says_how_its_runs_were_trained(texts, tmp_path, schedule):
    train = yaml.safe_load(SPEC)["train"] | {"schedule": schedule, "weight_decay": 0.03}
    result = study_of(spec_of(texts, train=train, target=None), tmp_path / "study").run()
    stored = LRLaw.from_json((tmp_path / "study" / "law.json").read_text()).conditions
    assert stored == result.fit.law.conditions
    assert (stored.schedule, stored.weight_decay, stored.batch_tokens) == (schedule, 0.03, 512)
    assert (stored.warmup_tokens, stored.seq_len) == (4096, 32)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"data_seed": 1},
        {"batch_tokens": 1024},
        {"schedule": "cosine"},
        {"weight_decay": 0.2},
        {"validation_tokens": 1024},
        {"warmup_tokens": 2048},
    ],
)
def test_runs_that_measure_other_things_have_other_names(texts, tmp_path, change):
    names = []
    for train in ({}, change):
        spec = spec_of(texts, train=yaml.safe_load(SPEC)["train"] | train)
        stages = Stages(FittingStudy(spec, tmp_path / str(len(names))).folder, None)
        names.append(stages.run_of("search", "S", spec.models()["S"], 39_936, 1e-3).name)
    assert names[0] != names[1]


def test_the_horizon_counts_only_where_the_schedule_depends_on_it(texts, tmp_path):
    for schedule, same in (("constant", True), ("cosine", False), ("wsd", False)):
        spec = spec_of(texts, train=yaml.safe_load(SPEC)["train"] | {"schedule": schedule, "checkpoint_seconds": 7})
        stages = Stages(FittingStudy(spec, tmp_path / schedule).folder, None)
        model = spec.models()["S"]
        names = {stages.run_of("search", "S", model, tokens, 1e-3).name for tokens in (20_480, 39_936)}
        assert (len(names) == 1) is same


# -- going on --


@pytest.mark.parametrize("changes", [{}, SURFACE], ids=["quadratic", "surface"])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.75, 0.98])
def test_killed_anywhere_it_ends_with_the_same_tables_and_law(texts, tmp_path, changes, share):
    spec = spec_of(texts, **changes)
    counter = SerialExecutor()
    undisturbed = study_of(spec, tmp_path / "undisturbed", counter)
    undisturbed.run()
    left = int(share * len(counter.trained))

    def die(job, tokens):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    first, second = SerialExecutor(die), SerialExecutor()
    with pytest.raises(KeyboardInterrupt):
        study_of(spec, tmp_path / "killed", first).run()
    study = study_of(spec, tmp_path / "killed", second)
    study.run()
    same_study(study, undisturbed)
    if not changes:  # a made-up run has no checkpoint: of one that was on its way, or paused, all is reported again
        assert len({run for run, _ in set(first.trained) & set(second.trained)}) <= 1


def test_a_finished_study_trains_nothing(finished, texts):
    shutil.rmtree(finished.directory / "corpus")
    again = FittingStudy(spec_of(texts), finished.directory, executor=no_executor)
    assert again.ending() == "the answer\n"
    assert again.run().fit.law == finished.fit().law


def test_runs_are_paused_and_resumed(texts, tmp_path):
    executor = SerialExecutor()
    study = study_of(spec_of(texts, **SURFACE), tmp_path / "study", executor)
    result = study.run()
    ends = study.trials.read().to_pylist()
    runs = {row["trial"] for row in ends}
    assert len(ends) > len(runs), "no run was resumed"
    assert {row["end"] for row in ends} <= {RunEnd.PAUSED, RunEnd.COMPLETED}
    budget = max(study.spec.token_budgets)
    for run in study.finished_runs():
        if run.attributes["status"] == RunEnd.PAUSED:
            assert run.final == pytest.approx(float(result.fit.surfaces[run.setting].loss(run.lr, budget)[0]))


def test_a_run_that_failed_is_trained_again(texts, tmp_path):
    def fail(job, tokens):
        if job.size == "M" and tokens > 20_000:
            raise RuntimeError("out of memory")

    spec = spec_of(texts)
    with pytest.raises(TrainingError, match=r"M-lr.*: out of memory; what was measured is kept"):
        study_of(spec, tmp_path / "study", SerialExecutor(fail)).run()
    study = study_of(spec, tmp_path / "study")
    study.run()
    undisturbed = study_of(spec, tmp_path / "other")
    undisturbed.run()
    assert study.fit().law == undisturbed.fit().law or len(study.trials) > len(undisturbed.trials)


def test_every_run_diverged(texts, tmp_path):
    with pytest.raises(InputError, match=r"every run diverged, at LRs from .* lower lr\.low"):
        study_of(spec_of(texts, lr={"low": 5.0, "high": 90.0}), tmp_path / "study").run()


def test_a_corpus_smaller_than_the_budget_is_refused_before_training(texts, tmp_path):
    train = yaml.safe_load(SPEC)["train"] | {"repeat_data": False}
    spec = spec_of(texts, budgets=["20k", "900M"], train=train)
    study = FittingStudy(spec, tmp_path / "study", executor=no_executor)
    with pytest.raises(InputError, match=r"training tokens and the longest run needs 900M"):
        study.run()
    study_of(spec_of(texts), tmp_path / "study").run()  # nothing was measured: the mended spec may have the folder


# -- reading --


def test_reading_writes_nothing_and_needs_neither_corpus_nor_lock(finished, capsys):
    folder = finished.directory
    shutil.rmtree(folder / "corpus")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(folder)
    with (folder / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        study = FittingStudy.open(folder)
        assert study.ending() == "the answer\n"
        assert study.result().prediction == finished.result().prediction
        assert study.finished_runs()
        assert check_study(folder).whole
        for command in (["fit"], ["check"]):
            with pytest.raises(SystemExit) as end:
                main([*command, str(folder)])
            assert not end.value.code
    assert contents(folder) == before
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_the_report_is_one_file_with_its_pictures(finished):
    result = finished.result()
    path = write_report(result)
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "http://" not in page
    assert "https://" not in page
    names = {file.name for file in (path.parent / "figures").iterdir()}
    assert {"figure-1a-loss-curves.png", "figure-1b-loss-over-lr.svg", "figure-2-law.png", "check.svg"} <= names


@pytest.mark.parametrize("content", ["[]", "{}", '{"text": 3}', "", "nonsense", "\0\xff", "[" * 100_000])
def test_a_damaged_ending_counts_as_none_and_is_written_again(finished, content):
    file = finished.directory / "ending.json"
    file.write_text(content)
    assert finished.ending() is None
    found = check_study(finished.directory)
    assert [part.name for part in found.parts if not part.whole] == ["ending.json"]
    finished.end("new")
    assert finished.ending() == "new"


def test_a_damaged_law_is_found_and_written_again(finished):
    file = finished.directory / "law.json"
    good = file.read_text()
    file.write_text(good[:-40])
    assert finished.ending() is None
    assert [part.name for part in check_study(finished.directory).parts if not part.whole] == ["law.json"]
    finished.run()
    assert file.read_text() == good


def test_fitting_again_leaves_the_law_as_the_run_wrote_it(finished):
    file = finished.directory / "law.json"
    file.write_text("mine")
    finished.fit()
    finished.result()
    assert file.read_text() == "mine"


# -- whose folder it is --


def test_another_spec_is_kept_out_of_a_studys_folder(finished, texts):
    before = contents(finished.directory)
    with pytest.raises(StudyError, match=r"holds a study of another spec \(budgets"):
        FittingStudy(spec_of(texts, budgets=["20k", "30k"]), finished.directory)
    assert contents(finished.directory) == before
    renamed = FittingStudy(spec_of(texts, name="other"), finished.directory, executor=no_executor)
    renamed.run()
    assert FittingStudy.open(finished.directory).spec.name == "other"


def test_a_second_process_changes_nothing_and_learns_that_it_is_locked(texts, tmp_path):
    folder = tmp_path / "study"

    def busy(job, tokens):
        before = contents(folder)
        for spec in (spec_of(texts), spec_of(texts, budgets=["20k", "30k"])):
            code = (
                "import sys, json; from raylr.spec import StudySpec; from raylr.study import FittingStudy\n"
                "FittingStudy(StudySpec.model_validate_json(sys.stdin.read()), sys.argv[1]).run()"
            )
            other = subprocess.run(
                [sys.executable, "-c", code, str(folder)], input=spec.model_dump_json(), capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert "StudyLockedError: another process is running the study" in other.stderr, other.stderr
        assert contents(folder) == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # nothing is measured yet when the other process comes
        study_of(spec_of(texts), folder, SerialExecutor(busy)).run()
    with pytest.raises(StudyLockedError), FittingStudy(spec_of(texts), folder).folder.locked():
        study_of(spec_of(texts), folder).run()


def test_the_tables_of_another_spec_cannot_be_opened_as_its_own(finished, texts, tmp_path):
    other = study_of(spec_of(texts, budgets=["20k", "30k"], target=None), tmp_path / "other")
    other.run()
    for name in ("evaluations", "trials"):
        shutil.rmtree(other.directory / name)
        shutil.copytree(finished.directory / name, other.directory / name)
    with pytest.raises(StudyError, match="holds results of another spec"):
        FittingStudy.open(other.directory).result()
    assert not check_study(other.directory).whole


def test_a_spec_that_was_changed_in_the_folder_is_noticed(finished):
    file = finished.directory / "spec.yaml"
    file.write_text(file.read_text().replace("weight_decay: 0.1", "weight_decay: 0.2"))
    with pytest.raises(StudyError, match=r"spec\.yaml was changed since the study began"):
        FittingStudy.open(finished.directory)


def test_the_corpus_may_not_change_on_the_way(texts, tmp_path):
    from raylr.trainables import build_corpus

    build_corpus([texts], tmp_path / "corpus", vocab_size=300)
    spec = spec_of(texts, corpus={"path": str(tmp_path / "corpus")})

    def die(job, tokens):
        if tokens > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_of(spec, tmp_path / "study", SerialExecutor(die)).run()
    shutil.rmtree(tmp_path / "corpus")
    (tmp_path / "more.py").write_text("x = 1\n" * 1000)
    build_corpus([texts, tmp_path / "more.py"], tmp_path / "corpus", vocab_size=300)
    with pytest.raises(StudyError, match=r"corpus of the study .* has changed"):
        study_of(spec, tmp_path / "study").run()


def test_a_folder_with_other_things_is_left_alone(texts, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StudyError, match="is not empty and holds no study"):
        FittingStudy(spec_of(texts), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_opening_no_study(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        FittingStudy.open(tmp_path)


def test_a_study_of_an_earlier_version_is_told_in_a_sentence(finished):
    (finished.directory / "study.json").unlink()
    for action in (FittingStudy.open, check_study, lambda folder: FittingStudy(finished.spec, folder)):
        with pytest.raises(StudyError, match="holds a study of an earlier version of raylr"):
            action(finished.directory)


# -- damage --


def damage(table, how):
    """Damage the newest fragment of a table."""
    path = sorted(table.folder.iterdir())[-1]
    if how == "gone":
        path.unlink()
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 4
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["evaluations", "trials"])
@pytest.mark.parametrize("how", ["gone", "torn", "flipped"])
@pytest.mark.parametrize("ended", [False, True])
def test_what_a_damaged_fragment_held_is_measured_again(texts, tmp_path, whole, name, how, ended):
    """Each table has several fragments when it is damaged (of a study that was killed), or one (of a finished one)."""

    def die(job, tokens):
        if job.role == "check" and not ended:
            raise KeyboardInterrupt

    spec, folder = spec_of(texts), tmp_path / "study"
    study = study_of(spec, folder, SerialExecutor(die))
    try:
        study.run()
    except KeyboardInterrupt:
        assert not ended
    path = damage(getattr(study, name), how)
    if how != "gone":
        with pytest.raises(DamagedError, match=path.name):
            study_of(spec, folder).run()
        assert not check_study(folder).whole
        (moved,) = set_aside(folder)
        assert moved.parent == folder / "damaged"
    if name == "evaluations":
        assert not check_study(folder).whole
    executor = SerialExecutor()
    study = study_of(spec, folder, executor)
    study.run()
    assert executor.trained
    assert check_study(folder).whole
    same_study(study, whole[0])


def test_a_row_never_names_a_folder_outside_the_study(finished, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    table = finished.trials
    row = next(row for row in table.read().to_pylist() if row["role"] == "search")
    for name in ("../../precious", str(precious), ".."):
        table.append([row | {"trial": name, "evaluations": 0}])
    with pytest.raises(StudyError, match="does not name a folder directly inside"):
        finished.run()
    assert precious.is_dir()
    assert (finished.directory / "spec.yaml").is_file()
    assert not check_study(finished.directory).whole


def test_an_end_that_is_none_is_damage(finished):
    table = finished.trials
    row = table.read().to_pylist()[0]
    table.append([row | {"tokens": row["tokens"] + 1, "end": "frozen"}])
    with pytest.raises(DamagedError, match="has the end 'frozen'"):
        finished.finished_runs()
    assert not check_study(finished.directory).whole


def test_settings_that_are_not_those_of_the_run_are_found(finished):
    table = finished.trials
    row = table.read().to_pylist()[0]
    table.append([row | {"tokens": row["tokens"] + 1, "config": '{"lr": 1}', "evaluations": 0}])
    assert "not the identity" in next(p.message for p in check_study(finished.directory).parts if not p.whole)


def test_the_command_says_what_is_whole(finished, capsys):
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory)])
    assert not end.value.code
    assert "is whole." in capsys.readouterr().out
    path = damage(finished.evaluations, "flipped")
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory)])
    assert end.value.code == 1
    assert path.name in "".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        main(["check", str(finished.directory), "--set-aside"])
    assert end.value.code == 1
    assert "measures again what is missing" in " ".join(capsys.readouterr().out.split())


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(texts, tmp_path, whole, monkeypatch):
    import os

    sync, left = os.fsync, 12

    def full(handle):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match=r"cannot write .*study/.*: the disk is full"):
            study_of(spec_of(texts), tmp_path / "study").run()
    study = study_of(spec_of(texts), tmp_path / "study")
    study.run()
    same_study(study, whole[0])


def test_a_folder_that_is_removed_on_the_way_is_not_made_again(texts, tmp_path):
    folder = tmp_path / "study"

    def remove(job, tokens):
        if job.size == "M" and folder.exists():
            shutil.rmtree(folder)

    with pytest.raises(StorageError, match="its folder is not there"):
        study_of(spec_of(texts), folder, SerialExecutor(remove)).run()
    assert not folder.exists()


def test_fragments_are_plain_parquet(finished):
    (path,) = finished.evaluations.fragments()
    assert pq.read_table(path, page_checksum_verification=True).num_rows == len(finished.evaluations)
    assert isinstance(path, Path)
