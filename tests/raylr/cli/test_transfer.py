import json

import pytest

from raylr.cli.app import main
from raylr.quickstart import QUICKSTART_YAML

MODEL = (
    "layers: {layers}\nheads: 2\nkv_heads: 1\nhead_dim: 16\nexperts: 4\ntop_k: 2\nexpert_size: {width}\n"
    "vocab_size: 64\nhidden_size: {width}\n"
)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "base.yaml").write_text(MODEL.format(width=32, layers=2) + "tokens: 1M\n")
    (tmp_path / "target.yaml").write_text(MODEL.format(width=128, layers=4) + "tokens: 4M\n")
    (tmp_path / "study.yaml").write_text(QUICKSTART_YAML)
    (tmp_path / "own.yaml").write_text("terms: [{quantity: lr, roles: [lm_head], width: -0.5, source: own runs}]\n")
    return tmp_path


def run(capsys, *words):
    code = 0
    try:
        main(["transfer", *map(str, words)])
    except SystemExit as ended:
        code = ended.code or 0
    found = capsys.readouterr()
    return code, found.out, found.err


def test_explained_and_as_json(files, capsys):
    code, out, _ = run(capsys, "--explain", files / "base.yaml", files / "target.yaml")
    assert code == 0
    for words in (
        "m_N = 4 (width), m_L = 2 (depth), m_D = 4 (tokens)",
        "lm_head.weight",
        "m_N^-1 · m_D^-0.5",
        "arXiv 2512.22382",
        "router=hidden: ",
        "Not covered heads / hidden_size is 0.0625 in the base",
    ):
        assert words in out
    code, out, _ = run(capsys, "--json", files / "base.yaml", files / "target.yaml", "--choose", "router=output")
    found = json.loads(out)
    tensors = {one["name"]: one for one in found["tensors"]}
    assert len(tensors) == 3 + 4 * 11
    assert tensors["lm_head.weight"]["factors"]["lr"]["factor"] == 0.125
    assert tensors["model.layers.3.mlp.gate.weight"]["factors"]["init_variance"]["formula"] == "m_N^-2"
    assert found["residual_multiplier"] == 0.5
    assert found["choices"]["router"]["option"] == "output"
    assert all(term["source"] for one in tensors.values() for row in one["factors"].values() for term in row["terms"])


def test_rules_for_muon_are_explained(files, capsys):
    words = ["--choose", "optimizer=muon_match_rms_adamw", files / "base.yaml", files / "target.yaml"]
    code, out, _ = run(capsys, "--explain", *words)
    assert code == 0
    told = " ".join(out.split())
    assert "Muon trains the matrices of attention_in, attention_out, experts_in, experts_out; AdamW trains" in told
    assert "m_D^-0.5 · m_in^-0.5 · m_out^0.5 ·" in told
    assert "arXiv 2310.17813" in told
    assert "muon_weight_decay=constant" in told
    tensors = json.loads(run(capsys, "--json", *words)[1])["tensors"]
    assert {one["role"]: one["optimizer"] for one in tensors}["experts_in"] == "muon"
    assert {one["role"]: one["optimizer"] for one in tensors}["router"] == "adamw"


def test_sizes_of_a_study_and_an_own_table(files, capsys):
    code, out, _ = run(capsys, f"{files / 'study.yaml'}:S", files / "study.yaml", "--json")
    assert code == 0
    ratios = json.loads(out)["ratios"]
    assert ratios.pop("tokens") == pytest.approx(2.0, rel=0.01)
    assert ratios == {"width": 3.5, "depth": 1.0, "batch": 1.0}
    code, out, _ = run(capsys, files / "base.yaml", files / "target.yaml", "--rule", files / "own.yaml", "--json")
    factors = {one["role"]: one["factors"]["lr"]["factor"] for one in json.loads(out)["tensors"]}
    assert {role for role, factor in factors.items() if factor != 1} == {"lm_head"}
    assert factors["lm_head"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study.yaml", "study.yaml"], "which size is the base"),
        (["study.yaml:XS", "study.yaml"], "there is no size 'XS'"),
        (["base.yaml:S", "target.yaml"], "describes one model"),
        (["missing.yaml", "target.yaml"], "there is no spec at"),
        (["base.yaml", "target.yaml", "--rule", "mupp"], "no parametrization and no file 'mupp'; did you mean 'mup'"),
        (["base.yaml", "target.yaml", "--choose", "router"], "write CHOICE=OPTION"),
        (["base.yaml", "target.yaml", "--rule", "own.yaml", "--choose", "router=output"], "write them into"),
        (["base.yaml", "bad.yaml"], "hidden_sizes"),
        (["base.yaml", "tied.yaml"], "tied embeddings"),
    ],
)
def test_bad_input(files, capsys, monkeypatch, words, message):
    monkeypatch.chdir(files)
    (files / "bad.yaml").write_text("model: {hidden_sizes: 32}\n")
    (files / "tied.yaml").write_text(MODEL.format(width=128, layers=4) + "tied_embeddings: true\n")
    code, out, err = run(capsys, *words)
    assert code == 2
    assert message in err
    assert not out
