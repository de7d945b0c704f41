"""Runs with every probe: they change nothing, and measure the same in every layout."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import own_networks
import pytest
import torch
from tiny_runs import BATCH, MODEL, curve, probed, run

from raylr.trainables import HFSpec, ModuleSpec
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.training.probes import StepEvent
from raylr.trainables.training.probing.shipped import NAMES, shipped_probes

SHORT: dict[str, Any] = {"steps": 4, "eval_at": [2 * BATCH, 4 * BATCH]}


@pytest.fixture(scope="module")
def folder(corpus: Corpus) -> Iterator[Path]:
    yield corpus.path
    import deepspeed

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout", [{}, {"zero_stage": 1}, {"zero_stage": 3, "micro_batch": 4}, {"dtype": "bf16"}], ids=str
)
def test_a_run_with_all_probes_is_the_run_without(folder: Path, layout: dict[str, Any]) -> None:
    plain = run(folder, **SHORT, **layout)
    rows = run(folder, **SHORT, **layout, probes_on=NAMES)
    assert curve(rows) == curve(plain)
    assert not any("probe_note" in key for key in rows[0])
    assert {key.partition("/")[0] for key in probed(rows[-1])} == {
        "update_rms", "update_ratio", "grad_rms", "attention_logit_max", "attention_entropy", "router_load_max",
        "router_load", "router_entropy", "router_margin", "dead_experts", "activation_rms", "activation_change",
        "loss_spikes", "grad_norm_spikes", "grad_norm_max",
    }  # fmt: skip
    assert all(math.isfinite(value) for value in probed(rows[-1]).values() if isinstance(value, float))


@pytest.mark.slow
def test_update_rms_is_that_of_the_optimizers_state(folder: Path) -> None:
    """Against a plain AdamW beside the run, which gets the clipped gradients that the run's optimizer had."""
    wanted: dict[str, float] = {}

    def watch(event: Any) -> None:
        if not isinstance(event, StepEvent) or event.step < 4:
            return
        for group in event.engine.optimizer.param_groups:
            updates, weights, squares = [], [], []
            for param in group["params"]:
                state = event.engine.optimizer.state[param]
                m, v = state["exp_avg"] / (1 - 0.9**4), state["exp_avg_sq"] / (1 - 0.95**4)
                updates.append((m / (v.sqrt() + 1e-8)).flatten())
                weights.append(param.detach().flatten())
                squares.append(v.flatten())
            rms = [float(torch.cat(parts).square().mean().sqrt()) for parts in (updates, weights)]
            wanted["update_rms/" + group["role"]] = rms[0]
            wanted["update_ratio/" + group["role"]] = group["lr"] * rms[0] / rms[1]
            wanted["grad_rms/" + group["role"]] = float(torch.cat(squares).mean().sqrt())

    given = {"lr_multipliers": {"router": 0.5}, "probes_on": ("update_rms",)}
    whole = probed(run(folder, **SHORT, **given, probes=[watch])[-1])
    found = {key: value for key, value in whole.items() if "/layers" not in key}
    assert found == pytest.approx(wanted, rel=1e-5)
    for layout in ({"zero_stage": 2}, {"zero_stage": 3}):
        assert probed(run(folder, **SHORT, **given, **layout)[-1]) == pytest.approx(whole, rel=1e-3)
    first = probed(run(folder, steps=4, eval_at=[BATCH, 4 * BATCH], probes_on=("update_rms",))[0])
    assert first["update_rms/lm_head"] == pytest.approx(1.0, abs=1e-3)  # a sign, at the first step
    assert first["update_ratio/lm_head"] == pytest.approx(3e-3 / 4 / MODEL.init_std, rel=0.05)
    assert f"update_rms/attention/layers/{MODEL.layers - 1}" in first


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_columns_of_one_that_never_stopped(folder: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"probes_on": ("changes", "spikes"), "probe_interval": 2}
    whole = run(folder, **fields)
    run(folder, run_dir=tmp_path, stop_at=6 * BATCH, **fields)
    again = run(folder, run_dir=tmp_path, **fields)
    assert [probed(row) for row in again] == [probed(row) for row in whole]
    counted = ["loss_spikes" in row for row in whole], ["activation_change/logits" in row for row in whole]
    assert counted == ([True] * 4, [False, True, False, True])
    assert whole[3]["activation_change/logits"] > whole[1]["activation_change/logits"] > 0


@pytest.mark.slow
def test_what_cannot_be_seen_is_said_once(folder: Path) -> None:
    network = ModuleSpec(module="own_networks:Network", folder=str(Path(own_networks.__file__).parent), vocab_size=400)
    rows = run(folder, model=network, **SHORT, probes_on=NAMES)
    notes = {key: value for key, value in rows[0].items() if "probe_note" in key}
    assert sorted(notes) == [f"probe_note/{name}" for name in ("activations", "attention", "changes", "router")]
    assert "show no repeated layers" in notes["probe_note/attention"]
    assert "no parameter of this network is a router's" in notes["probe_note/router"]
    assert "no columns of attention_logits: nothing" in notes["probe_note/changes"]
    assert rows[1]["activation_change/logits"] > 0 < rows[1]["activation_change/embeddings"]
    assert "probe_note" not in str(rows[1])
    assert rows[1]["update_rms/embedding"] > 0
    assert not [key for key in rows[0] if key.startswith(("attention", "router", "activation_rms"))]
    muon = run(folder, **SHORT, optimizer="muon", probes_on=("update_rms",))
    assert "of attention, experts_in, experts_out: Muon trains them" in muon[0]["probe_note/update_rms"]
    assert muon[0]["update_rms/router"] > 0
    assert "update_rms/attention" not in muon[0]


@pytest.mark.slow
def test_a_model_of_transformers_is_seen(folder: Path) -> None:
    fields = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 400, "n_positions": 32,
              "tie_word_embeddings": False, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip
    row = probed(run(folder, model=HFSpec(hf=fields), **SHORT, probes_on=NAMES)[-1])
    assert {"attention_entropy/layers/1", "activation_rms/mlp/layers/1"} <= {*row}
    assert 0 < row["attention_entropy"] < math.log(32)
    assert "probe_note/router" not in row  # said in the first row


def test_the_names_are_those_of_the_spec() -> None:
    assert len(shipped_probes(NAMES)) == len(NAMES)
