"""Scored questions of runs that are made up: what they know of the right answer follows from their loss."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from raylr.analysis.scores.scores import QUESTION_SCHEMA, SCORES
from raylr.analysis.scores.suites import LETTERS

SUBJECTS = (("mmlu", "anatomy"), ("mmlu", "astronomy"), ("cmmlu", "genetics"))


def made_loss(tokens: int) -> float:
    return 2 + 3 * (tokens / 1e5) ** -0.3


def scored(
    runs: Mapping[str, float], tokens: tuple[int, ...], *, questions: int = 60, slope: float = -0.3, **fields: Any
) -> pa.Table:
    """Questions of each run (name -> what is added to its loss) at each token count, the last of them in the decay: the
    right letter's score is `slope`·(loss − 5) nats above the others', give or take."""
    rng = np.random.default_rng(0)
    rows = []
    for run, more in runs.items():
        for count in tokens:
            edge = slope * (made_loss(count) + more - 5)
            for suite, subject in SUBJECTS:
                for index in range(questions):
                    gold = int(rng.integers(4))
                    values = rng.normal(0, 0.1, 4) + edge * (np.arange(4) == gold)
                    predicted = int(values.argmax())
                    rows.append(
                        {
                            "run": run,
                            "checkpoint": f"{run}/{count}",
                            "tokens": count,
                            "phase": "decay" if count == tokens[-1] else "stable",
                            "suite": suite,
                            "subject": subject,
                            "index": index,
                            "gold": LETTERS[gold],
                            "prediction": LETTERS[predicted],
                            "correct": predicted == gold,
                            "backend": "lm-eval",
                            "engine": "transformers",
                            "mode": "ppl",
                            "prompt": "made",
                            "model_hash": f"{run}{count}",
                            "data_hash": "made",
                        }
                        | dict(zip(SCORES, values.tolist(), strict=True))
                        | fields
                    )
    return pa.Table.from_pylist(rows, QUESTION_SCHEMA)


def run_table(runs: Mapping[str, float], tokens: tuple[int, ...]) -> pa.Table:
    """The run table of the same runs, one evaluation more than was scored, and one that diverged."""
    rows = [
        {"trial": run, "size": "S", "lr": 1e-3, "tokens": count, "loss": made_loss(count) + more}
        for run, more in runs.items()
        for count in (*tokens, tokens[-1] + 1)
    ]
    return pa.Table.from_pylist([*rows, {**rows[0], "trial": "diverged", "loss": math.nan}])
