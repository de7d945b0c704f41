import json
import math

from raylr.analysis.probes import QUANTITIES, Record, columns_of, tidy
from raylr.trainables.training.probing.columns import cell, with_layers


def test_every_number_is_found_and_nothing_else() -> None:
    columns = with_layers("update_rms/router", 0.2, {1: 0.25, 3: math.nan})
    columns |= {"router_load/layers": [[0.5, 1.5], [1, 1]], "loss_spikes": 2, "activation_change/logits": math.inf}
    columns["probe_note/attention"] = "attention has no columns"
    row = {"trial": "a", "tokens": 64, "step": 2, "loss": 3.0} | {name: cell(value) for name, value in columns.items()}
    assert row["update_rms/router/layers"] == "[null, 0.25, null, null]"
    found = [(one.quantity, one.module, one.layer, one.expert, one.value) for one in tidy([row, {"tokens": 1}])]
    assert found == [
        ("update_rms", "router", None, None, 0.2),
        ("update_rms", "router", 1, None, 0.25),
        ("router_load", "", 0, 0, 0.5),
        ("router_load", "", 0, 1, 1.5),
        ("router_load", "", 1, 0, 1.0),
        ("router_load", "", 1, 1, 1.0),
        ("loss_spikes", "", None, None, 2.0),
    ]
    assert len(columns_of(row)) == 5


def test_damaged_and_empty_cells_are_left_out() -> None:
    row = {"tokens": 8, "grad_rms/router": None, "grad_rms/router/layers": "[0.1", "router_load/layers": None}
    assert tidy([row, {"tokens": 9, "grad_rms/router/layers": json.dumps({"a": 1})}]) == []
    assert tidy([{"tokens": 9, "grad_norm_max": 1.0}]) == [
        Record(trial="", tokens=9, step=None, quantity="grad_norm_max", module="", layer=None, expert=None, value=1.0)
    ]


def test_quantities_have_names_that_can_be_told_from_others() -> None:
    assert not any("/" in name for name in QUANTITIES)
