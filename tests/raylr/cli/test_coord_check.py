import json

import pytest

from raylr.cli.app import main

MODEL = """
model: {hidden_size: 16, layers: 2, heads: 2, kv_heads: 1, head_dim: 8, experts: 2, top_k: 1,
        expert_size: 16, vocab_size: 32}
"""
FEW = ["--seeds", "1", "--steps", "1", "--batch", "1x8", "--workers", "1"]
NET = """
from torch import nn
def make(width, depth, seed):
    return nn.Sequential(nn.Embedding(32, int(8 * width)), nn.Linear(int(8 * width), 32, bias=False))
def wrong(width, depth, seed):
    return width
"""


def run(capsys, *words):
    code = 0
    try:
        main(["coord-check", *map(str, words)])
    except SystemExit as ended:
        code = ended.code or 0
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "nets_of_coord_check.py").write_text(NET)
    (tmp_path / "roles.yaml").write_text("patterns: [{regex: '^0', role: embedding}, {regex: '^1', role: lm_head}]\n")
    return tmp_path


@pytest.mark.slow
def test_a_models_file_with_both_kinds_of_attention_and_again(folder, capsys):
    words = ["model.yaml", *FEW, "--widths", "1,2,4", "--axis", "width", "--rule", "standard"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    for text in (
        "Verdict     standard, QK norm over width: grows",
        "Verdict     standard, no QK norm over width: grows",
        "router logits",
        "QK-normed logits",
        "-0.5 to 0",
        "Not seen    LRs of norms",
        "check.json",
    ):
        assert text in out
    files = sorted((folder / "runs/coord-check/coordinates").iterdir())
    assert len(files) == 6
    code, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    assert [check["variant"] for check in found["checks"]] == ["standard, QK norm", "standard, no QK norm"]
    assert found["settings"]["lr"] == 1e-3
    assert sorted((folder / "runs/coord-check/coordinates").iterdir()) == files  # nothing was measured again


def test_a_function_with_roles(folder, capsys):
    words = ["--model", "nets_of_coord_check:make", "--roles", "roles.yaml", *FEW, "--widths", "1,4,16",
             "--axis", "width", "--rule", "mup", "--initialised", "fan_in", "--out", "own"]  # fmt: skip
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "mup over width: as expected" in out
    assert {path.stem for path in (folder / "own/figures").iterdir()} == {"changes_width", "raw_width", "slopes_width"}
    assert "mup over width: as expected" in (folder / "own/coord-check.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.yaml"], "there is no spec at"),
        (["model.yaml", "--widths", "1,2"], "--widths: at least 3 different multiples"),
        (["model.yaml", "--widths", "1,two"], "--widths 1,two: write numbers"),
        (["model.yaml", "--steps", "1,1.5"], "write whole numbers"),
        (["model.yaml", "--batch", "4"], "write sequences x tokens"),
        (["model.yaml", "--rule", "mupp"], "no parametrization and no file 'mupp'; did you mean 'mup'"),
        (["model.yaml", "--choose", "router"], "write CHOICE=OPTION"),
        (["model.yaml", "--roles", "roles.yaml"], "belongs to --model"),
        (["model.yaml", "--model", "nets_of_coord_check:make"], "give one"),
        (["--model", "nets_of_coord_check"], "write package.module:function"),
        (["--model", "nets_of_coord_check:missing"], "no function missing"),
        (["--model", "nets_of_coord_check:wrong", "--axis", "width", *FEW], "returned float"),
        (["--model", "nets_of_coord_check:make", "--axis", "width", *FEW], "gives the tensor 0.weight"),
        (["model.yaml", "--workers", "0"], "workers=0"),
        (["model.yaml", "--seeds", "0"], "seeds"),
    ],
)
def test_bad_input(folder, capsys, words, message):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert message in err
