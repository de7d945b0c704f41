"""A Ray Tune trainable whose last result has scores, so that a searcher can search on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from raylr.analysis.scores.scores import summarise
from raylr.analysis.scores.table import calibrated, suite_columns
from raylr.errors import InputError
from raylr.evaluation.backends.base import open_backend
from raylr.evaluation.evaluator import evaluate_one
from raylr.evaluation.questions import choose_subjects
from raylr.evaluation.spec import ScoresSpec
from raylr.evaluation.tables import QuestionTable

_METRICS = ("", "_stderr", "_log_prob", "_log_prob_stderr")
"""What follows a suite's name in the metrics that Tune may search on (`suite_columns`)."""


def scored_pretrain(config: dict[str, Any]) -> None:
    """Ray Tune function trainable: `pretrain` whose last result has the scores of the trained model.

    Tune can then search on them, for example with `metric="mmlu_log_prob", mode="max"` (smooth where accuracy is still
    at chance). Results before the last one, and those of runs that diverged, have NaN for the metrics of
    `raylr.analysis.scores.table.suite_columns` (log-probabilities are `calibrated`). So has the last one if the
    evaluation failed, with the reason in `evaluation_failure`. The scored questions are in the trial's folder.

    Args:
        config: The keys of `pretrain`, and `scores`: fields of `ScoresSpec`. Those that plan evaluations in a study
            (`every`, `runs`, `cpus`, …) are not used, because the trial itself evaluates at its end.

    Raises:
        InputError: The run has several workers, or the questions are not there.
    """
    from ray import tune

    from raylr.trainables import arguments, train, trial_threads
    from raylr.trainables.training import metrics

    spec = ScoresSpec.model_validate(config["scores"])
    open_backend(spec)
    choose_subjects(spec.suites, spec.subjects, spec.data)
    plain = {key: value for key, value in config.items() if key != "scores"}
    given = arguments(plain | {"checkpoint_reports": True})
    if given["train"].workers > 1:
        raise InputError("scored_pretrain evaluates trials of one worker; let an Evaluator evaluate larger ones")
    folder = Path(tune.get_context().get_trial_dir())
    missing = {f"{suite}{column}": math.nan for suite in spec.suites for column in _METRICS}

    def report(row: dict[str, Any], checkpoint: Path | None) -> None:
        scores: dict[str, Any] = dict(missing)
        model = checkpoint or given.get("run_dir")  # a finished run that was started again reports without checkpoints
        if model is not None and row[metrics.TOKENS] == given["tokens"] and not metrics.diverged(row):
            name = tune.get_context().get_trial_id()
            attempt = evaluate_one(Path(model), spec, folder, name, name)
            if attempt.scored:
                scores |= suite_columns(summarise(calibrated(QuestionTable(folder).read())))
            else:
                scores["evaluation_failure"] = attempt.reason
        tune.report(row | scores)

    train(**given, report=report, threads=trial_threads())
