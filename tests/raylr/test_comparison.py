"""Comparisons of made-up studies. The comparison of real ones is in docs/transfer.md."""

import json
import math
import shutil

import pytest
from made_comparison import FITTING, TRANSFER, report, spec_of, studies_of
from made_scores import scored
from made_study import contents, no_executor
from serial_executor import SerialExecutor

from raylr.analysis.comparison import ArmKind
from raylr.comparison import as_json, compare, lr_factor, targets_of
from raylr.errors import InputError
from raylr.evaluation.tables import QuestionTable
from raylr.quickstart import example_spec
from raylr.report.comparison import write_comparison
from raylr.spec import StudySpec
from raylr.study import FittingStudy
from raylr.transfer_study import TransferStudy

ARMS = [ArmKind.FITTED, ArmKind.TRANSFERRED, ArmKind.PARAMETRIZED]


@pytest.fixture(scope="module")
def ready(texts, tmp_path_factory):
    """The folder of two finished studies, whose target was trained for their checks alone; not to be changed."""
    folder = tmp_path_factory.mktemp("ready")
    for study in studies_of(texts, folder):
        study.run()
    return folder


@pytest.fixture
def copied(ready, texts, tmp_path):
    """Makes the two studies of a copy of it, with an executor of their own."""

    def make(executor=None, name="copy", **options):
        if not (tmp_path / name).exists():
            shutil.copytree(ready, tmp_path / name)
        return studies_of(texts, tmp_path / name, executor, **options)

    return make


@pytest.fixture(scope="module")
def done(ready, texts, tmp_path_factory):
    """Two finished studies and their comparison; not to be changed."""
    folder = tmp_path_factory.mktemp("compared") / "both"
    shutil.copytree(ready, folder)
    one, other = studies_of(texts, folder)
    return one, other, compare(one, other, train=True)


def test_arms_differ_in_what_they_are_said_to_differ_in(done):
    one, other, result = done
    arms = {arm.kind: arm for arm in result.comparison.arms}
    assert list(arms) == ARMS
    assert [len(arm.runs) for arm in arms.values()] == [3, 3, 3]
    fitted, carried = one.result().prediction.lr, other.result().search
    assert arms[ArmKind.FITTED].lr == pytest.approx(fitted, rel=1e-6)
    assert arms[ArmKind.TRANSFERRED].lr == pytest.approx(carried.lr, rel=1e-6)
    (target,) = other.spec.transfer.targets
    factor = lr_factor(other, target)
    ratio = other.spec.tokens_of(target) / 39936
    assert factor == pytest.approx(1 / 4 * ratio**-0.5, rel=1e-3)  # hidden matrices: m_N^-1 · m_D^-1/2
    assert arms[ArmKind.PARAMETRIZED].lr * factor == pytest.approx(fitted, rel=1e-5)
    configs = {row["trial"]: json.loads(row["config"]) for row in other.trials.read().to_pylist()}
    for kind in ARMS[1:]:
        for seed, run in enumerate(arms[kind].runs):
            train = configs[run.name]["train"]
            assert (train["seed"], train["data_seed"], run.seed) == (seed, seed, seed)
            assert train["parametrization"]["rule"] == "completed_p"
            assert configs[run.name]["model"]["init_std"] == carried.axes["init_std"]


def test_the_run_of_the_check_is_the_first_seed(done):
    one, other, _ = done
    for study, name in ((one, "wide"), (other, "large")):
        runs = {
            (row["role"], row["lr"], row["seed"]) for row in study.evaluations.read().to_pylist() if row["size"] == name
        }
        checked = {(lr, seed) for role, lr, seed in runs if role == "check"}
        assert checked
        assert not checked & {(lr, seed) for role, lr, seed in runs if role == "arm"}


def test_the_verdict_tells_the_lr_from_the_parametrization(done):
    _, _, result = done
    found = result.comparison
    assert found.best == "transferred"
    assert found.pair("transferred", "fitted").difference == pytest.approx(-0.1, abs=0.03)
    assert found.pair("parametrized", "transferred").difference > 0
    assert found.probability > 0.99
    assert result.target == "large"
    assert result.tokens == 79872
    assert math.isnan(json.loads(as_json(result).replace("null", "NaN"))["arms"][0]["mean_loss"]) is False


def test_costs_are_those_of_the_searches_and_of_one_run(done):
    one, other, result = done
    arms = {arm.kind: arm for arm in result.comparison.arms}
    for kind, study in zip(ARMS, (one, other), strict=False):
        rows = [row for row in study.evaluations.read().to_pylist() if row["role"] == "search"]
        last = {row["trial"]: row["tokens"] for row in sorted(rows, key=lambda row: row["tokens"])}
        assert arms[kind].search.tokens == sum(last.values())
        assert arms[kind].training.flops == pytest.approx(6.0 * result.params * 79872)
    both = arms[ArmKind.FITTED].search + arms[ArmKind.TRANSFERRED].search
    assert arms[ArmKind.PARAMETRIZED].search == both


def test_reading_trains_and_writes_nothing(done):
    one, other, result = done
    before = contents(one.directory), contents(other.directory)
    again = compare(one.directory, other.directory)
    assert (contents(one.directory), contents(other.directory)) == before
    assert as_json(again) == as_json(result)


def test_a_finished_comparison_trains_nothing_and_more_seeds_train_those_alone(done, tmp_path):
    one, other, result = done
    idle = [type(study)(study.spec, study.directory, executor=no_executor) for study in (one, other)]
    assert as_json(compare(*idle, train=True)) == as_json(result)
    made = SerialExecutor(report=report())
    for name, study in (("fitting", one), ("transfer", other)):
        shutil.copytree(study.directory, tmp_path / name)
    again = [
        type(study)(study.spec, tmp_path / name, executor=lambda callbacks: made)
        for name, study in (("fitting", one), ("transfer", other))
    ]
    more = compare(*again, train=True, seeds=4)
    assert [len(arm.runs) for arm in more.comparison.arms] == [4, 4, 4]
    assert len({name for name, _ in made.trained}) == 3


def test_noise_decides_nothing(copied):
    found = compare(*copied(gain=0.0, noise=0.3), train=True).comparison
    assert found.best is None
    assert found.pair("fitted", "transferred").better is None


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_killed_anywhere_it_goes_on_and_ends_alike(copied, done, share):
    left, reports = [int(share * 7 * 16)], []

    def stop(job, tokens):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        reports.append((job.run.name, tokens))

    with pytest.raises(KeyboardInterrupt):
        compare(*copied(SerialExecutor(stop, report())), train=True)
    rest = SerialExecutor(report=report())
    result = compare(*copied(rest), train=True)
    again = {*rest.trained} & {*reports}
    assert len({name for name, _ in again}) <= 1  # the run that was killed has no checkpoint here
    assert as_json(result) == as_json(done[2])


def test_before_anything_is_trained_the_arms_are_those_of_the_checks(copied):
    found = compare(*copied(no_executor))
    assert [(arm.name, len(arm.runs)) for arm in found.comparison.arms] == [("fitted", 1), ("transferred", 1)]
    assert any("parametrized has no run yet" in note for note in found.notes)
    assert found.comparison.status == "too_few"
    assert found.comparison.pairs[0].result.better is None
    assert compare(*copied(no_executor), seed_sd=1e-3).comparison.best == "transferred"


def test_diverged_seeds_are_no_losses(copied):
    found = compare(*copied(lost=lambda job: (job.size, job.role) == ("wide", "arm")), train=True).comparison
    fitted = found.arm(ArmKind.FITTED)
    assert (fitted.diverged, len(fitted.runs)) == (2, 3)
    assert 0.9 < found.pair("transferred", "fitted").probability < found.decided
    assert found.pair("transferred", "fitted").better is None


def test_a_sweep_at_the_target_is_an_arm_of_its_own(copied):
    one, other = copied()
    found = compare(one, other, train=True, seeds=2, sweep=4)
    swept = found.comparison.arm(ArmKind.SWEPT)
    if swept is None:
        assert any("which is the fitted one" in note for note in found.notes)
    else:
        assert swept.search.tokens > 2 * found.tokens
        assert swept.mean < found.comparison.arm(ArmKind.FITTED).mean
    rows = one.evaluations.read().to_pylist()
    assert 0 < len({row["trial"] for row in rows if row["role"] == "sweep"}) <= 4
    assert as_json(compare(one, other)) == as_json(found)


def test_scores_of_the_arms_are_read(copied, tmp_path):
    one, other = copied()
    result = compare(one, other, train=True, seeds=2)
    for study, kind, slope in ((one, ArmKind.FITTED, -0.3), (other, ArmKind.TRANSFERRED, -3.0)):
        runs = {run.name: -1.0 for run in result.comparison.arm(kind).runs}
        table = scored(runs, (40_000, 79_872), slope=slope, questions=30)
        QuestionTable(study.directory).append(table.to_pylist())
    found = compare(one, other)
    fitted, carried, third = found.comparison.arms
    assert {*fitted.runs[0].scores} == {"mmlu", "cmmlu"}
    assert fitted.runs[0].scores["mmlu"].tokens == 79_872
    assert carried.runs[0].scores["mmlu"].accuracy > fitted.runs[0].scores["mmlu"].accuracy
    assert third.runs[0].scores == {}
    assert {found.labels[one.run] for one in found.scores} == {
        "fitted, seed 0", "fitted, seed 1", "transferred, seed 0", "transferred, seed 1"
    }  # fmt: skip
    text = write_comparison(found, tmp_path / "out").read_text()
    assert "MMLU: fitted" in text
    assert (tmp_path / "out" / "figures" / "compare-scores.png").exists()


def test_the_examples_have_one_target(tmp_path):
    one = FittingStudy(example_spec("fitting"), tmp_path / "one")
    own, theirs = targets_of(one, TransferStudy(example_spec("transfer"), tmp_path / "other"), None)
    assert own.name == theirs.name == "wide"


def test_layout_is_no_difference_between_targets(texts, tmp_path):
    train = {"seq_len": 32, "batch_tokens": 512, "warmup_steps": 8, "validation_tokens": 512, "repeat_data": True}
    one = FittingStudy(spec_of(FITTING, texts, train=train | {"micro_batch": 4}), tmp_path / "one")
    own, theirs = targets_of(one, TransferStudy(spec_of(TRANSFER, texts), tmp_path / "other"), None)
    assert (own.name, theirs.name) == ("wide", "large")


def test_a_study_that_grows_keeps_its_arms(copied, texts):
    one, other = copied()
    compare(one, other, train=True, seeds=2)
    made = SerialExecutor(report=report())
    study = TransferStudy(spec_of(TRANSFER, texts, validations=20), other.directory, executor=lambda callbacks: made)
    study.run()
    assert made.trained == []
    assert study.folder.left_out == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"train": {"seq_len": 64, "batch_tokens": 1024, "repeat_data": True}}, "train.batch_tokens"),
     ({"model": {"head_dim": 8, "experts": 8, "top_k": 2, "layers": 1}}, "experts"), ({"target": None}, "no target"),
     ({"corpus": {"vocab_size": 300}}, "the corpus")],
)  # fmt: skip
def test_targets_that_are_not_the_same_are_refused(texts, tmp_path, changes, words):
    one = FittingStudy(spec_of(FITTING, texts, **changes), tmp_path / "one")
    other = TransferStudy(spec_of(TRANSFER, texts), tmp_path / "other")
    with pytest.raises(InputError, match=words):
        targets_of(one, other, None)


def test_an_unknown_target_and_bad_numbers_are_refused(texts, tmp_path):
    one, other = studies_of(texts, tmp_path)
    with pytest.raises(InputError, match="no target 'deep'; it has large"):
        compare(one, other, target="deep")
    with pytest.raises(InputError, match="seeds"):
        compare(one, other, seeds=0)


OWN = {"trainable": {"function": "own_trainer:train"}, "train": {"batch_tokens": 500, "schedule": "constant"}}


def test_another_trainers_studies_have_two_arms(tmp_path):
    (tmp_path / "own_trainer.py").write_text("def train(config, report):\n    pass\n")
    shared = OWN | {"trainable": OWN["trainable"] | {"folder": str(tmp_path)}}
    sizes = {"S": {"params": "100k"}, "M": {"params": "250k"}}
    target = {"name": "XL", "model": {"params": "1.5M"}, "tokens": "80k", "check": [1]}
    fits = StudySpec.model_validate(
        shared | {"sizes": sizes, "budgets": ["24k", "40k"], "lr": [3e-4, 1e-1], "target": target}
    )
    carries = StudySpec.model_validate(
        shared
        | {"sizes": {"proxy": {"params": "100k"}}, "budgets": ["40k"], "lr": [1e-3, 1e-1]}
        | {"transfer": {"init_std": [0.005, 0.08], "targets": [target | {"ratios": {"width": 4, "depth": 1}}]}}
    )

    def report_of(job, tokens):
        params, std = job.columns["params"], job.columns.get("init_std", 0.02)
        height = 0.06 * math.log(job.lr / (8e-3 * (params / 1e5) ** -0.3)) ** 2 + 0.01 * math.log(std / 0.02) ** 2
        return {"loss": 2.2 + 40 * tokens**-0.35 + height + 1e-3 * math.sin(job.lr * 1e6 + tokens + 9 * job.seed),
                "tokens": tokens, "run_end": None}  # fmt: skip

    made = SerialExecutor(report=report_of)
    one = FittingStudy(fits, tmp_path / "one", executor=lambda callbacks: made)
    other = TransferStudy(carries, tmp_path / "other", executor=lambda callbacks: made)
    found = compare(one, other, train=True)
    assert [(arm.name, len(arm.runs)) for arm in found.comparison.arms] == [("fitted", 3), ("transferred", 3)]
    assert len({run.loss for arm in found.comparison.arms for run in arm.runs}) == 6
    assert any("parametrized is missing" in note for note in found.notes)
    assert "transferred" in write_comparison(found, tmp_path / "out").read_text()
