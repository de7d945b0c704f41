import json
import re

import pytest
from made_modules import BEST, GLOBAL, LR, report, spec_of, study_of
from made_study import no_executor
from serial_executor import SerialExecutor

from raylr.errors import StudyError
from raylr.module_study import MODULE_WISE, ModuleStudy
from raylr.report.html import write_report
from raylr.report.modules import module_rows, modules_ending, overall
from raylr.spec import StudySpec
from raylr.studies import open_study
from raylr.study import FittingStudy


@pytest.fixture(scope="module")
def searched(corpus, tmp_path_factory):
    """A finished greedy study; not to be changed."""
    study = study_of(spec_of(corpus), tmp_path_factory.mktemp("modules") / "study")
    return study, study.run()


def trained(study):
    """Names of the runs of a study."""
    return {row["trial"] for row in study.trials.read().to_pylist()}


def test_each_modules_optimum_is_found_and_the_gain_is_real(searched):
    study, result = searched
    (one,) = result.sizes
    assert one.lr == pytest.approx(GLOBAL, rel=0.2)
    for name, best in BEST.items():
        value, low, high = one.answer(name)
        assert low <= best * LR / one.lr <= high, name
        assert value == one.values[name]
    assert one.answer("embedding")[0] > 1.2
    assert one.answer("lm_head")[0] < 0.8
    assert one.comparison.best == MODULE_WISE
    assert all(len(arm.runs) == 3 for arm in one.comparison.arms)
    assert 1e-4 < one.noise < 2e-3
    answer = json.loads((study.directory / "modules.json").read_text())["sizes"][0]
    assert answer["axes"]["lm_head"]["value"] == one.values["lm_head"]
    assert answer["comparison"]["better"] == MODULE_WISE
    assert answer["comparison"]["probability_module_wise_better"] > 0.97
    assert result.cost.token_share < 0.75


def test_nothing_is_measured_twice_and_the_tables_say_what_each_run_was_given(searched):
    study, result = searched
    (one,) = result.sizes
    rows = study.trials.read().to_pylist()
    assert len({row["trial"] for row in rows}) == len(rows) <= 6 + 3 + 4 * 4 + 3
    places = [json.loads(row["config"]) for row in rows]
    settings = [json.dumps([there["lr"], there["multipliers"], there["train"]], sort_keys=True) for there in places]
    assert len(set(settings)) == len(settings)
    last = study.evaluations.read().to_pylist()[-1]
    assert last["lr"] == one.lr
    assert last["lr_multiplier_embedding"] == pytest.approx(one.values["embedding"])
    multipliers = places[-1]["multipliers"]["lr"]
    assert multipliers["hidden_norms"] == multipliers["attention"] == one.values["hidden"]


def test_killed_in_the_middle_it_is_read_and_ends_with_the_same_answer(corpus, tmp_path, searched):
    total = searched[0].evaluations.read().num_rows

    def die(job, tokens):
        if job.columns["lr_multiplier_router"] != 1 and tokens > 20_000:
            raise KeyboardInterrupt

    folder = tmp_path / "killed"
    half = study_of(spec_of(corpus), folder, SerialExecutor(die, report()))
    with pytest.raises(KeyboardInterrupt):
        half.run()
    (one,) = half.result().sizes
    assert one.answer("lm_head") is not None
    assert one.answer("router") is None
    assert "not searched" in modules_ending(half.result())[0].text
    assert write_report(half.result()).exists()
    before = half.evaluations.read().num_rows
    executor = SerialExecutor(report=report())
    study_of(spec_of(corpus), folder, executor).run()
    assert (folder / "modules.json").read_text() == (searched[0].directory / "modules.json").read_text()
    assert len(executor.trained) <= total - before + 16  # the run that was on its way began anew


def test_a_finished_study_is_read_without_training(searched):
    study, result = searched
    opened = open_study(study.directory)
    assert isinstance(opened, ModuleStudy)
    again = ModuleStudy(study.spec, study.directory, executor=no_executor).run()
    assert again.sizes[0].values == result.sizes[0].values
    with pytest.raises(StudyError, match="ModuleStudy"):
        FittingStudy.open(study.directory)
    assert "lr_multiplier_hidden" in opened.finished_runs()[0].attributes


def test_all_at_once_takes_fewer_runs(corpus, tmp_path, searched):
    study = study_of(spec_of(corpus, modules={"method": "joint"}), tmp_path / "study")
    (one,) = study.run().sizes
    for name, best in BEST.items():
        _, low, high = one.answer(name)
        assert low <= best * LR / one.lr <= high, name
    assert len(trained(study)) < len(trained(searched[0]))
    assert one.comparison.best == MODULE_WISE
    assert write_report(study.result()).exists()


def test_equal_modules_are_not_called_better(corpus, tmp_path):
    best = dict.fromkeys(BEST, 1.0)
    result = study_of(spec_of(corpus), tmp_path / "study", best=best, noise=0.01).run()
    (one,) = result.sizes
    text = modules_ending(result)[0].text
    assert one.comparison is None or one.comparison.best is None, text
    assert re.match("Cannot tell|One LR", text)


def test_a_given_lr_is_not_searched(corpus, tmp_path):
    study = study_of(spec_of(corpus, modules={"lr": LR, "seeds": 0}), tmp_path / "study")
    result = study.run()
    (one,) = result.sizes
    assert one.lr == LR
    assert one.global_stage is None
    assert {row["lr"] for row in study.trials.read().to_pylist()} == {LR}
    assert len(trained(study)) <= 16
    assert "Not tested" in modules_ending(result)[0].text


def test_a_finished_study_of_one_lr_grows_into_one_of_modules_and_gives_others_its_optimum(corpus, tmp_path):
    plain = spec_of(corpus).model_dump() | {"modules": None}
    executor = SerialExecutor(report=lambda job, tokens: report()(_at_one(job), tokens))
    first = FittingStudy(StudySpec.model_validate(plain), tmp_path / "study", executor=lambda callbacks: executor)
    first.run()
    optimum = first.fit().optima[0]
    before = trained(first)
    grown = study_of(spec_of(corpus), tmp_path / "study")
    (one,) = grown.run().sizes
    assert optimum.lr_low <= one.lr <= optimum.lr_high
    assert before < trained(grown)
    assert len(one.global_stage.runs) == len(before)
    other = study_of(spec_of(corpus, modules={"study": str(tmp_path / "study")}), tmp_path / "other")
    with pytest.raises(StudyError, match=r"modules\.study"):
        other.run()  # that is a study of modules by now


def _at_one(job):
    for name in BEST:
        job.columns.setdefault(f"lr_multiplier_{name}", 1.0)
    return job


def test_another_trainer_gets_the_factors_and_its_runs_are_told_apart_by_them(tmp_path):
    words = ["{python}", "train.py", "{lr}", "{seed}", *(f"{{lr_multiplier_{name}}}" for name in BEST)]
    spec = StudySpec.model_validate({
        "command": words, "sizes": {"S": {"params": "100k"}}, "train": {"batch_tokens": 512, "schedule": "constant"},
        "budgets": "40k", "lr": [1e-3, 1e-1], "modules": {"method": "joint", "lr": LR, "seeds": 2},
    })  # fmt: skip
    study = study_of(spec, tmp_path / "study")
    (one,) = study.run().sizes
    low, high = one.answer("embedding")[1:]
    assert low <= BEST["embedding"] <= high
    rows = [json.loads(row["config"]) for row in study.trials.read().to_pylist()]
    assert len({tuple(row["command"]) for row in rows}) == len(rows)
    assert {"0.5", "1.0"} & {word for row in rows for word in row["command"]}


def test_the_tables_and_the_report(searched):
    _, result = searched
    head, rows = overall(result)
    assert head == ["", "S"]
    assert [row[0] for row in rows] == ["all", *BEST]
    assert len(module_rows(result)) == 5
    lines = modules_ending(result)
    assert lines[0].text.startswith("The module-wise setting is better than one LR at S")
    path = write_report(result)
    text = path.read_text()
    assert "figure-5-modules" in text
    assert "Is it better?" in text
    assert (path.parent / "figures" / "figure-6-compared-1.svg").exists()
