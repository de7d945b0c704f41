import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.trainables.training.probes import StepEvent, ValidationEvent
from raylr.trainables.training.probing.spikes import LEAST, SIGMAS, WINDOW, SpikeProbe, new_series, take


@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.floats(1e-3, 1))
def test_a_spike_is_what_the_definition_says(seed: int, level: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    values = level + scale * rng.standard_normal(400)
    values[rng.integers(LEAST, 400, 6)] += scale * rng.uniform(5, 20, 6)
    series = new_series()
    for i, value in enumerate(values):
        past = values[max(0, i - WINDOW) : i]
        distance = (value - past.mean()) / past.std() if i >= LEAST else 0.0
        if abs(distance - SIGMAS) > 1e-6:
            assert take(series, float(value)) == (distance > SIGMAS), i
        else:
            take(series, float(value))


def test_the_window_moves_and_the_memory_survives_json() -> None:
    rng = np.random.default_rng(0)
    values = 3.0 + np.exp(-np.arange(2500) / 300) + 0.01 * rng.standard_normal(2500)
    whole, parts = new_series(), new_series()
    for i, value in enumerate(values):
        take(whole, float(value))
        take(parts, float(value))
        if i == 1700:
            parts = json.loads(json.dumps(parts))
    assert whole == parts
    last = np.array(whole["last"]) + whole["origin"]
    assert sorted(last) == pytest.approx(sorted(values[-WINDOW:]))
    assert whole["sum"] / WINDOW + whole["origin"] == pytest.approx(values[-WINDOW:].mean())
    assert whole["spikes"] == 0
    assert take(whole, 3.2)


def test_counts_and_the_largest_norm_since_the_last_row() -> None:
    memory: dict[str, object] = {}
    probe, engine = SpikeProbe(), SimpleNamespace()

    def step(number: int, loss: float, norm: float) -> None:
        event = StepEvent(engine=engine, step=number, tokens=number, current_lr=1e-3, train_loss=loss, grad_norm=norm,
                          memory=memory)  # fmt: skip
        assert probe(event) is None

    for number in range(1, 201):
        step(number, 3.0 + 0.01 * (number % 2), 1.0 + 0.1 * (number % 2))
    step(201, 4.0, 9.0)
    step(202, float("nan"), float("inf"))
    row = ValidationEvent(engine=engine, row={}, memory=memory, due=False)
    found = probe(row)
    assert found is not None
    assert (found["loss_spikes"], found["grad_norm_spikes"]) == (1, 1)
    assert probe(row) == {"loss_spikes": 1, "grad_norm_spikes": 1, "grad_norm_max": 0.0}
