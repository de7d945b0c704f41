from pathlib import Path
from typing import Any

import own_networks
import pytest
import torch
from tiny_runs import curve, run

from raylr.errors import InputError, SpecError
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.export.hf import export_checkpoint
from raylr.trainables.models.build import build
from raylr.trainables.models.interface import Losses
from raylr.trainables.models.module import UserModule
from raylr.trainables.models.spec import ModuleSpec, model_spec
from raylr.trainables.models.transfer import network_of
from raylr.trainables.training.groups import MUON, parameter_groups
from raylr.trainables.training.spec import TrainSpec

FOLDER = str(Path(own_networks.__file__).parent)
TRAIN = TrainSpec(seq_len=8, batch_tokens=64)


def spec(name: str = "Network", **fields: Any) -> ModuleSpec:
    found = model_spec({"module": f"own_networks:{name}", "vocab_size": 400, "folder": FOLDER, **fields})
    assert isinstance(found, ModuleSpec)
    return found


def test_parameters_are_counted_on_the_meta_device_or_else_for_real() -> None:
    body = 16 * 32 + 32 + 32 * 16 + 16 + 16
    for one in (spec(), spec("Late")):
        assert one.params() == one.params("active") == body + 2 * 400 * 16
        assert one.params("non_embedding") == body
        assert one.flops_per_token(32) == 6 * (body + 400 * 16)
    tied = spec(args={"tied": True})
    assert (tied.params(), tied.params("non_embedding")) == (body + 400 * 16, body)
    assert tied.flops_per_token(32) == 6 * (body + 400 * 16)
    assert spec(args={"width": 32}).params() > spec().params()
    assert spec(active_params=1000).params("active") == 1000


def test_roles_follow_from_the_structure_and_the_loss_is_that_of_the_logits() -> None:
    model = build(spec(), seed=0, z_loss=0.1)
    assert isinstance(model, UserModule)
    groups = parameter_groups(model, TRAIN.model_copy(update={"optimizer": TrainSpec(
        seq_len=8, batch_tokens=64, optimizer="muon").optimizer}))  # fmt: skip
    names = {param: name for name, param in model.named_parameters()}
    roles = {names[param]: group["role"] for group in groups for param in group["params"]}
    assert roles["network.table.weight"] == "embedding"
    assert roles["network.out.weight"] == "lm_head"
    assert roles["network.gain"] == "final_norm"
    muon = {names[param] for group in groups if group["optimizer"] == MUON for param in group["params"]}
    assert muon == {"network.inner.0.weight", "network.inner.2.weight"}
    ids = torch.randint(0, 400, (3, 9), generator=torch.Generator().manual_seed(0))
    losses, logits = model(ids[:, :-1], ids[:, 1:]), model(ids[:, :-1])
    assert isinstance(losses, Losses)
    flat = logits.flatten(0, 1)
    want = torch.nn.functional.cross_entropy(flat, ids[:, 1:].flatten())
    assert torch.isclose(losses.cross_entropy, want)
    assert torch.isclose(losses.total, want + 0.1 * flat.logsumexp(-1).square().mean())
    same, other = (build(spec(), seed=seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in same.items())
    assert not torch.equal(other["network.table.weight"], same["network.table.weight"])


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("Network", {"depth": 2}, r"own_networks:Network\(vocab_size=400, depth=2\) raised TypeError: .*'depth'"),
        ("without_vocabulary", {"width": 8}, r"raised TypeError: .*unexpected keyword argument 'vocab_size'"),
        ("no_module", {}, r"returned a dict, not a torch\.nn\.Module"),
        ("Two", {}, r"must return the logits .* \[2, 4, 400\]; it returned a tuple"),
        ("Last", {}, r"it returned torch\.float32 of shape \[2, 400\]"),
        ("WithLabels", {}, r"forward\(tokens\), with tokens of shape \[2, 4\], raised TypeError: .*'labels'"),
        ("nothing", {}, "the module own_networks has no function nothing"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_when_it_is_counted(name: str, args: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec(name, args=args).params()
    with pytest.raises(InputError, match=message):
        build(spec(name, args=args), seed=0)


def test_a_network_that_sees_the_answer_and_what_raylr_cannot_do_are_refused() -> None:
    with pytest.raises(SpecError, match="change with a later token"):
        build(spec("SeesAll"), seed=0)
    with pytest.raises(SpecError, match="activation_checkpointing=True is not possible"):
        build(spec(), seed=0, activation_checkpointing=True)
    with pytest.raises(SpecError, match="cross_document_attention=False is not possible"):
        build(spec(), seed=0, within_documents=True)
    with pytest.raises(SpecError, match="roles of the tensors of own_networks:Network are not known"):
        network_of(spec())
    with pytest.raises(ValueError, match="vocab_size is a key beside args"):
        spec(args={"vocab_size": 3})


def test_roles_by_regular_expressions_go_first() -> None:
    own = spec(roles={r"inner\.0\.": "router", "inner": "experts_out"})
    roles = build(own, seed=0).roles
    assert roles["network.inner.0.weight"] == roles["network.inner.0.bias"] == "router"
    assert roles["network.inner.2.weight"] == "experts_out"
    assert roles["network.table.weight"] == "embedding"
    assert own.identity() != spec().identity()
    with pytest.raises(SpecError, match="'gate' matches no tensor; there are gain, table"):
        spec(roles={"gate": "router"}).params()
    for wrong, message in (({"x": "routr"}, "did you mean 'router'"), ({"(": "router"}, "is not a regular expression")):
        with pytest.raises(ValueError, match=message):
            spec(roles=wrong)


def test_identity_has_the_shapes_and_not_the_folder(tmp_path: Path) -> None:
    one, wide = spec(args={"width": 16}).identity(), spec(args={"width": 32}).identity()
    assert one["tensors"]["table.weight"] == [400, 16]
    assert one != wide
    assert one == spec(args={"width": 16}, active_params=7).identity()
    assert "folder" not in one


@pytest.mark.slow
def test_a_run_learns_resumes_bit_for_bit_and_is_not_exported(corpus: Corpus, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"model": spec(), "lr": 3e-2, "checkpoint_seconds": 0}
    whole = run(corpus.path, run_dir=tmp_path / "whole", **fields)
    assert whole[-1]["loss"] < whole[0]["loss"] - 0.1
    assert whole[-1]["params"] == spec().params()
    run(corpus.path, run_dir=tmp_path / "half", stop_at=6 * 256, **fields)
    assert curve(run(corpus.path, run_dir=tmp_path / "half", **fields)) == curve(whole)
    with pytest.raises(InputError, match="a network of your own, own_networks:Network: Hugging Face has no archi"):
        export_checkpoint(tmp_path / "whole", tmp_path / "hf")
