import json
import math
import re
from dataclasses import replace

import pytest
from made_study import no_executor
from made_transfer import LR, SLOPE, STD, report, spec_of, study_of
from serial_executor import SerialExecutor
from training_executor import TrainingExecutor

from raylr.analysis.optimum.basin import Basins
from raylr.errors import StudyError
from raylr.report.transfer import verdict_at
from raylr.report.verdict import Advice
from raylr.spec.transfer_runs import placed
from raylr.studies import open_study
from raylr.study import FittingStudy
from raylr.trainables import train
from raylr.transfer_study import TransferStudy
from raylr.transfer_study import carried as moved


def test_the_proxys_optimum_is_found_and_carried_with_a_wider_interval(carried):
    study, result = carried
    search, (wide, deep) = result.search, result.targets
    assert len(search.runs) <= 9
    assert search.lr == pytest.approx(LR, rel=0.1)
    assert search.axes["init_std"] == pytest.approx(STD, rel=0.25)
    assert search.basin.basins is Basins.ONE
    ridge = search.fit.ridge("lr", "init_std")
    assert ridge.low < SLOPE < ridge.high
    low, high = search.interval("lr")
    assert wide.prediction.lr == search.lr
    assert wide.prediction.lr_low < low < LR < high < wide.prediction.lr_high
    assert dict(wide.ratios) == pytest.approx({"width": 4, "depth": 1, "tokens": 2, "batch": 1}, rel=0.02)
    by_role = {role: setting for setting in wide.settings for role in setting.roles}
    ratio = wide.ratios["tokens"] ** -0.5
    assert by_role["experts_in"].lr == pytest.approx(search.lr / 4 * ratio)
    assert by_role["embedding"].lr == pytest.approx(search.lr * ratio)
    assert by_role["lm_head"].init_std == pytest.approx(search.axes["init_std"] / 4)
    assert {setting.residual for setting in deep.settings} == {1.0, 0.25}
    assert len(wide.check.runs) == 3
    assert deep.check is None
    assert verdict_at(result, wide).advice is Advice.TRUST
    assert verdict_at(result, deep).advice is Advice.TRUST
    assert result.cost.grid_tokens == 30 * search.tokens > 3 * result.cost.search_tokens
    answer = json.loads((study.directory / "transfer.json").read_text())
    assert answer["proxy"]["at"]["lr"]["value"] == search.lr
    assert [target["name"] for target in answer["targets"]] == ["wide", "deep"]


def test_the_tables_say_what_each_run_was_given(carried):
    study, result = carried
    rows = study.evaluations.read().to_pylist()
    search = [row for row in rows if row["role"] == "search"]
    check = [row for row in rows if row["role"] == "check"]
    assert {row["parametrization"] for row in search} == {None}
    assert len({row["init_std"] for row in search}) > 3
    assert {(row["parametrization"], row["size"]) for row in check} == {("completed_p", "wide")}
    assert {row["init_std"] for row in check} == {result.search.axes["init_std"]}
    config = json.loads(study.trials.read().to_pylist()[-1]["config"])
    assert config["train"]["parametrization"]["base"]["hidden_size"] == 16


def test_a_target_that_contradicts_the_transfer_is_not_trusted(texts, tmp_path):
    result = study_of(spec_of(texts), tmp_path / "study", miss=4.0).run()
    found = verdict_at(result, result.targets[0])
    assert found.advice is Advice.UNKNOWN
    assert 'Do not trust the transfer at "wide"' in found.text


def test_what_no_rule_covers_is_not_trusted_without_runs_at_the_target(texts, carried):
    target = {"name": "more", "model": {"hidden_size": 64, "heads": 8, "kv_heads": 4, "expert_size": 64, "experts": 8},
              "tokens": "80k", "check": []}  # fmt: skip
    spec = spec_of(texts, transfer={"targets": [target]})
    one = moved(spec, carried[1].search, spec.targets[0])
    found = verdict_at(replace(carried[1], spec=spec, targets=(one,)), one)
    assert found.advice is Advice.UNKNOWN
    assert "experts changes from the proxy" in found.text


def test_killed_at_the_target_it_ends_with_the_same_tables_and_answer(texts, tmp_path, carried):
    spec, left = spec_of(texts), int(0.9 * carried[0].evaluations.read().num_rows)

    def die(job, tokens):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_of(spec, tmp_path / "killed", SerialExecutor(die, report())).run()
    study = study_of(spec, tmp_path / "killed")
    study.run()
    assert json.loads((study.directory / "transfer.json").read_text()) == json.loads(
        (carried[0].directory / "transfer.json").read_text()
    )
    tables = [
        sorted(json.dumps(row | {"seconds": None}) for row in table.read().to_pylist())
        for one in (study, carried[0])
        for table in (one.evaluations, one.trials)
    ]
    assert tables[:2] == tables[2:]


def test_a_finished_study_is_read_without_training(carried):
    study, result = carried
    opened = open_study(study.directory)
    assert isinstance(opened, TransferStudy)
    again = TransferStudy(study.spec, study.directory, executor=no_executor).run()
    assert again.search.lr == opened.result().search.lr == result.search.lr
    with pytest.raises(StudyError, match="TransferStudy"):
        FittingStudy.open(study.directory)
    runs = opened.finished_runs()
    assert {run.attributes["init_std"] for run in runs} == {run.place["init_std"] for run in result.search.runs}


def test_it_grows_by_trials_ranges_and_targets_and_says_what_another_rule_leaves_out(texts, tmp_path):
    folder, messages = tmp_path / "study", []
    first = study_of(spec_of(texts, search={"max_trials": 5, "tolerance": 1e-9}), folder)
    first.run()
    before = {row["trial"] for row in first.trials.read().to_pylist() if row["role"] == "search"}
    more = study_of(spec_of(texts, search={"max_trials": 7, "tolerance": 1e-9}), folder)
    assert len(more.run().search.runs) == 7
    assert before < {row["trial"] for row in more.trials.read().to_pylist()}
    wider = study_of(spec_of(texts, search={"max_trials": 4}, transfer={"init_std": [0.002, 0.1]}), folder)
    result = wider.run()  # the search begins anew and is told the seven runs
    assert len(result.search.runs) >= 7
    other = study_of(
        spec_of(texts, search={"max_trials": 4}, transfer={"rule": "mup", "init_std": [0.002, 0.1]}), folder
    )
    other.progress.message = messages.append
    other.run()
    (left,) = [int(found[1]) for text in messages if (found := re.search(r"; (\d+), which took", text))]
    assert left in (3, 6, 9)  # the runs at the target under the old rule, at each LR that was found so far


def test_diverged_runs_bound_the_lr(texts, tmp_path):
    result = study_of(spec_of(texts), tmp_path / "study", diverges=1.5).run()
    lost = [run for run in result.search.runs if math.isnan(run.loss)]
    assert lost
    assert result.search.lr < min(run.place["lr"] for run in lost)


def test_real_runs_train_the_target_under_the_rule(texts, tmp_path):
    target = {"name": "both", "model": {"hidden_size": 32, "heads": 4, "kv_heads": 2, "expert_size": 32, "layers": 2},
              "tokens": 16_384, "check": [1]}  # fmt: skip
    spec = spec_of(
        texts, budgets=8_192, search={"max_trials": 4, "truncate": False}, transfer={"targets": [target]},
        train={"seq_len": 32, "batch_tokens": 512, "warmup_steps": 2, "validation_tokens": 512, "repeat_data": True},
    )  # fmt: skip
    study = study_of(spec, tmp_path / "study", TrainingExecutor())
    result = study.run()
    (one,) = result.targets
    (found,) = one.check.runs
    model, settings = placed(
        spec, spec.target_model(one.target), spec.target_train(one.target), result.search.axes, one.target
    )
    run = {"lr": found.lr, "corpus": study.directory / "corpus", "tokens": 16_384, "threads": 1}
    again = train(model=model, train=settings, **run)
    assert float(found.loss[-1]) == again[-1]["loss"]
    plain = train(model=model, train=settings.model_copy(update={"parametrization": None}), **run)
    assert plain[-1]["loss"] != again[-1]["loss"]
    import deepspeed

    deepspeed.comm.destroy_process_group()
