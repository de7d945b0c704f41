"""The sentences of the ending and the report."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_results import made_result, made_spec, rows_of

from raylr.analysis.laws.loss_law import fit_loss_law
from raylr.analysis.laws.lr_fit import fit_lr_law
from raylr.analysis.laws.scaling import Estimate
from raylr.analysis.status import Status
from raylr.analysis.studyfit import check_prediction
from raylr.report.ending import ending, off_lines
from raylr.report.text import batch_lines, check_lines, cost_text, law_lines, loss_lines, number, remarks
from raylr.store.runtable import evaluations_table
from raylr.study import StudyResult


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    folder = tmp_path_factory.mktemp("text")
    return made_result(folder, rows_of(folder, {}), made_spec())


def test_the_loss_at_the_target_is_that_of_the_law_with_its_interval_and_the_cost_of_a_wrong_lr(
    result: StudyResult,
) -> None:
    (line,) = loss_lines(result)
    assert result.prediction is not None
    params, tokens = result.prediction.params, result.prediction.tokens
    loss = result.fit.loss_law.predict(params, tokens)
    assert line.heading == "Loss"
    found = [float(text) for text in re.findall(r"\d\.\d{4}", line.text)]
    assert found == [round(v, 4) for v in (loss.loss, loss.low, loss.high)]
    assert found[1] < found[0] < found[2]
    cost = result.fit.curvature_law.cost(params, tokens, 2.0)
    (off,) = off_lines(result)
    assert off.heading == "2× off"
    found = [float(text) for text in re.findall(r"\d\.\d{4}", off.text)]
    assert found == [round(v, 4) for v in (cost.value, cost.low, cost.high)]
    assert 0 < found[1] < found[0] < found[2]
    assert off.text.endswith(f"{cost.value / loss.loss:.1%} of the loss")


def test_a_measured_loss_outside_of_the_interval_of_the_predicted_one_is_named(result: StudyResult) -> None:
    assert result.prediction is not None
    assert result.check is not None
    loss = result.fit.loss_law.predict(result.prediction.params, result.prediction.tokens)
    inside, below, above = loss.loss, 2 * loss.low - loss.high, 2 * loss.high - loss.low
    texts = {}
    for lowest in (inside, below, above):
        check = replace(result.check)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(check), "loss_at", lambda self, run, lowest=lowest: lowest)
            (line,) = loss_lines(replace(result, check=check))
        texts[lowest] = line.text
    assert "measured" not in texts[inside]
    for lowest, side in ((below, "below"), (above, "above")):
        assert f"the lowest loss measured there, {lowest:.4f}, is {side} it" in texts[lowest]


def test_a_cost_that_the_runs_do_not_determine_is_no_number() -> None:
    def text(low: float, high: float) -> str:
        estimate = Estimate(
            value=0.02, low=low, high=high, params_beyond=1.0, tokens_beyond=1.0, batch_beyond=1.0, status=Status.OK,
            notes=(),
        )  # fmt: skip
        return cost_text(estimate, " at 1B", "1% of the loss")

    assert text(0.01, 0.04).endswith("costs 0.0200 at 1B (90 % interval 0.0100 to 0.0400), 1% of the loss")
    for low, high in ((8e-6, 39.0), (0.0, 0.1), (0.01, math.inf), (math.nan, math.nan)):
        assert text(low, high) == "the runs do not determine what an LR off by a factor of 2 costs at 1B"


def test_without_a_target_or_a_loss_law_there_is_no_loss(result: StudyResult) -> None:
    assert loss_lines(replace(result, prediction=None)) == []
    empty = replace(result.fit, loss_law=fit_loss_law([1e8], [1e9], [3.0]))
    assert not empty.loss_law.ok
    assert loss_lines(replace(result, fit=empty)) == []


def test_a_loss_without_a_curvature_has_no_cost(result: StudyResult) -> None:
    from raylr.analysis.laws.lr_fit import fit_curvature_law

    unknown = replace(result.fit, curvature_law=fit_curvature_law([1e8], [1e9], [math.nan]))
    assert off_lines(replace(result, fit=unknown)) == []


def test_a_loss_at_another_batch_than_those_measured_is_said(result: StudyResult) -> None:
    assert result.prediction is not None

    def lines(batches: tuple[float, float]) -> str:
        optima = [
            replace(one, setting=replace(one.setting, batch=batch))
            for one, batch in zip(result.fit.optima, batches * 3, strict=True)
        ]
        cells = [[getattr(one, name) for one in optima] for name in ("params", "tokens", "loss")]
        law = fit_loss_law(*cells, batch=[one.batch for one in optima])
        fit = replace(result.fit, optima=optima, loss_law=law)
        prediction = replace(result.prediction, batch=5000.0)  # type: ignore[type-var]
        return loss_lines(replace(result, fit=fit, prediction=prediction))[0].text

    assert lines((1024.0, 1024.0)).endswith(
        "; of a batch of 1.02k tokens. The target's batch of 5k tokens will end at another loss"
    )
    assert "outside of those measured, 1.02k to 2.05k" in lines((1024.0, 2048.0))
    assert "batch" not in lines((1024.0, 8192.0))
    assert "batch" not in loss_lines(result)[0].text


def test_the_exponent_of_the_batch_is_stated_with_what_determines_it() -> None:
    cells = ([1e8, 1e8, 4e8, 4e8], [1e9, 8e9, 1e9, 8e9], [1e-3, 9e-4, 8e-4, 7e-4])
    batch = [1e5, 4e5, 4e5, 1e5]
    law = fit_lr_law(*cells, batch=batch, stderr=0.05)
    low, high = law.interval(0.9)["delta"]
    (line,) = batch_lines(law)
    assert f"exponent of the batch {law.delta:.2f} (batches of 100k to 400k tokens)" in line.text
    assert f"90 % interval {low:.2f} to {high:.2f}" in line.text
    assert line in law_lines(law)
    (given,) = batch_lines(fit_lr_law(*cells, batch=batch, batch_exponent=0.5))
    assert given.text == "exponent of the batch 0.50 (batches of 100k to 400k tokens), as given"
    (one,) = batch_lines(fit_lr_law(*cells, batch=1e5))
    assert "(one batch, 100k tokens)" in one.text
    assert "its interval is that of the prior (0.5 ± 0.5)" in one.text
    assert batch_lines(fit_lr_law(*cells)) == []


def test_a_size_and_batch_without_a_run_is_named(result: StudyResult) -> None:
    data = result.spec.model_dump(mode="json") | {"batches": {"S": [2048, 4096], "M": [2048], "L": [2048]}}
    data["target"] |= {"batch_tokens": 2048}
    optima = [replace(one, setting=replace(one.setting, batch=2048.0)) for one in result.fit.optima]
    spec = type(result.spec).model_validate(data)
    lines = [line.text for line in remarks(replace(result, spec=spec, fit=replace(result.fit, optima=optima)))]
    assert "S B=4.1k: no run has ended yet" in lines
    assert sum("no run has ended" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.5, "2.5000"), (1e-7, "1e-7"), (-3.25e-5, "-3.25e-5"), (0.0, "0.0000"), (1234.5, "1234.5000"), (math.nan, "–")],
)
def test_a_small_number_is_not_shown_as_nothing(value: float, shown: str) -> None:
    assert number(value) == shown


def test_three_losses_at_a_target_do_not_prove_that_the_lr_costs_nothing(result: StudyResult) -> None:
    """The predicted LR may be the best of the three: the optimum is known to an interval all the same."""
    assert result.prediction is not None
    rows = evaluations_table(result.directory).read()
    line = check_lines(replace(result, check=check_prediction(rows, result.prediction.lr, 2_000_000)))[-1].text
    found = re.search(r"optimum is (\S+) \((\S+) to (\S+)\), a factor", line)
    assert found, line
    best, low, high = map(float, found.groups())
    assert low < 0.97 * best < 1.03 * best < high
    cost = re.search(r"is expected to cost (\S+)% of the loss", line)
    assert cost
    assert float(cost.group(1)) > 0


def test_sizes_that_are_called_by_words_are_quoted_in_sentences(tmp_path: Path) -> None:
    names = dict(zip(("S", "M", "L"), ("with", "without", "the"), strict=True))
    made = made_result(tmp_path, rows_of(tmp_path, names), made_spec(tuple(names.values()), target="at"))
    texts = [line.text for line in (*ending(made), *remarks(made))]
    used = [text for text in texts if re.search(r'"(with|without|the|at)"', text)]
    assert used
    for text in texts:
        assert not re.search(r"\b(at|of|for|not:|train|trained at) (with|without|the|at)( at| \(|,|:|$)", text), text
