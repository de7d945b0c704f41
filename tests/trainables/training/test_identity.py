import json
import os
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import MODEL, train_spec

from raylr.analysis.runs import identity_of
from raylr.trainables import HFSpec, run_identity
from raylr.trainables.training.identity import differences, identity_fields
from raylr.trainables.training.spec import TrainSpec

SAME = {
    "micro_batch": 2,
    "activation_checkpointing": True,
    "checkpoint_seconds": 1.0,
    "repeat_data": False,
    "workers": 2,
    "zero_stage": 2,
    "expert_parallel": 2,
    "decay_fraction": 0.5,
    "decay_shape": "sqrt",
    "final_lr_ratio": 0.1,
    "probes": ("spikes",),
    "probe_interval": 2,
}
"""Changes that leave a run at a constant LR as it is."""
OTHER: dict[str, Any] = {
    "seq_len": 16,
    "batch_tokens": 512,
    "warmup_steps": 5,
    "schedule": "cosine",
    "optimizer": "muon",
    "weight_decay": 0.2,
    "betas": (0.9, 0.99),
    "eps": 1e-9,
    "lr_multipliers": {"router": 2.0},
    "weight_decay_multipliers": {"router": 2.0},
    "eps_multipliers": {"router": 2.0},
    "grad_clip": 0.5,
    "z_loss": 1e-4,
    "dtype": "bf16",
    "seed": 1,
    "data_seed": 1,
    "cross_document_attention": False,
    "validation_tokens": 1024,
    "divergence_nats": 2.0,
    "parametrization": {"base": MODEL.model_dump(exclude_defaults=True), "token_ratio": 2.0},
}
"""Changes that make another run."""


def identity(train: dict[str, Any] | None = None, **fields: Any) -> str:
    usual: dict[str, Any] = {"model": MODEL, "lr": 1e-3, "tokens": 2560, "corpus": "text"}
    return run_identity(train=train_spec(**(train or {})), **usual | fields)


def test_every_setting_is_part_of_the_identity_or_named_here() -> None:
    assert set(SAME) | set(OTHER) | {"warmup_tokens"} == set(TrainSpec.model_fields)
    for name, value in SAME.items():
        change = {name: value} | ({"workers": 2} if name == "expert_parallel" else {})
        assert identity(change) == identity(), name
    changed = [identity({name: value}) for name, value in OTHER.items()]
    changed += [identity(lr=2e-3), identity(corpus="other")]
    changed += [identity(model=MODEL.model_copy(update={"layers": 3}))]
    assert len({identity(), *changed}) == len(changed) + 1


@given(
    tokens=st.integers(1, 10**9), other=st.integers(1, 10**9), schedule=st.sampled_from(["constant", "wsd", "cosine"])
)
def test_tokens_count_where_the_schedule_depends_on_them(tokens: int, other: int, schedule: str) -> None:
    same = identity({"schedule": schedule}, tokens=tokens) == identity({"schedule": schedule}, tokens=other)
    assert same == (schedule == "constant" or tokens == other)


def test_the_settings_of_muon_count_and_adamw_is_as_it_was_before_there_was_a_choice() -> None:
    fields = identity_fields(model=MODEL, train=train_spec(), lr=1e-3, tokens=2560, corpus="text")
    assert "optimizer" not in fields["train"]
    of_muon = [
        identity({"optimizer": {"name": "muon", **one}}) for one in ({}, {"momentum": 0.9}, {"adjust_lr": "original"})
    ]
    assert len({*of_muon, identity({"optimizer": "adamw"})}) == 4
    assert identity({"optimizer": "adamw"}) == identity()


def test_settings_of_one_meaning_have_one_identity() -> None:
    assert identity({"warmup_steps": None, "warmup_tokens": 4 * 256}) == identity({"warmup_steps": 4})
    experts = {"lr_multipliers": {"experts": 2.0}}
    by_role = {"lr_multipliers": {"experts_in": 2.0, "experts_out": 2.0, "router": 1.0}, "eps_multipliers": {}}
    assert identity(experts) == identity(by_role) != identity()
    cosine = {"schedule": "cosine"}
    assert identity(cosine | {"decay_fraction": 0.5}) == identity(cosine)
    assert identity(cosine | {"final_lr_ratio": 0.5}) != identity(cosine)


def test_a_hugging_face_model_is_its_configuration() -> None:
    sizes = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 400}
    one, other = (HFSpec(hf=sizes | {"intermediate_size": size}) for size in (64, 96))
    assert identity(model=one) == identity(model=HFSpec(hf=sizes | {"intermediate_size": 64})) != identity(model=other)


def test_differences_are_named_and_fields_survive_json() -> None:
    fields = {"model": MODEL, "lr": 1e-3, "tokens": 2560, "corpus": "text"}
    one = identity_fields(train=train_spec(), **fields)
    other = identity_fields(train=train_spec(seed=1), **fields | {"lr": 2e-3})
    assert differences(json.loads(json.dumps(one)), other) == ["lr: 0.001, not 0.002", "train.seed: 0, not 1"]
    assert identity_of(json.loads(json.dumps(one))) == identity_of(one)


def test_no_torch() -> None:
    code = "import sys, raylr.trainables.training.identity; print({'torch', 'ray', 'deepspeed'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
