import math
from pathlib import Path

import pytest
from made_backend import NAME
from tiny_runs import train_spec
from tune_trials import fit, trial

from raylr.errors import DataError, InputError
from raylr.evaluation.trainable import scored_pretrain
from raylr.trainables import Corpus


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_tune_searches_on_scores(corpus: Corpus, questions: Path, tmp_path: Path) -> None:
    from ray import tune

    fields = {"data": str(questions), "suites": ["mmlu"], "backend": NAME}
    config = trial(corpus, scores=fields, lr=tune.grid_search([1e-3, 3e-2]))
    results = fit(scored_pretrain, config, tmp_path, [], metric="mmlu_log_prob", mode="max")
    assert [result.error for result in results] == [None, None]
    values = {result.config["lr"]: result.metrics["mmlu_log_prob"] for result in results}
    assert values[1e-3] != values[3e-2]
    best = results.get_best_result()
    assert best.metrics["mmlu_log_prob"] == max(values.values())
    assert math.isnan(best.metrics_dataframe["mmlu_log_prob"].iloc[0])
    assert best.metrics["mmlu_questions"] == 6
    assert 0 <= best.metrics["mmlu"] <= 1


def test_what_cannot_be_scored_is_refused_before_training(corpus: Corpus, questions: Path) -> None:
    with pytest.raises(DataError, match="has no questions of mmlu/virology"):
        scored_pretrain(trial(corpus, scores={"data": str(questions), "suites": ["mmlu"], "subjects": ["virology"]}))
    with pytest.raises(InputError, match="one worker"):
        scored_pretrain(trial(corpus, scores={"data": str(questions)}, train=train_spec(workers=2).model_dump()))
