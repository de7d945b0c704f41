"""What a study keeps and what reading it does, on a made-up loss. Real runs are in `test_study_runs`."""

import fcntl
import shutil

import pytest
import yaml
from made_pages import is_self_contained
from made_study import SPEC, contents, spec_of, study_of

from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.runs import RunEnd
from raylr.cli.app import main
from raylr.report.html import write_report
from raylr.state import state_of
from raylr.store.check import check_study
from raylr.studies import open_study
from raylr.study import FittingStudy


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
    assert stored.objective == ("stable" if schedule == "constant" else "decayed")


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
    is_self_contained(path)
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


def test_others_see_a_study_as_running_until_its_end_is_noted(finished):
    with finished.held():
        assert state_of(open_study(finished.directory))["state"] == "running"
        finished.end("printed")
        assert state_of(open_study(finished.directory))["state"] == "running"
    assert state_of(open_study(finished.directory))["state"] == "finished"
    assert open_study(finished.directory).ending() == "printed"
