"""`raylr analyse` on made rows: nothing is trained."""

import json
from pathlib import Path

import pytest
from made_pages import is_self_contained

from raylr.analyses import read_measured
from raylr.cli import app
from raylr.coordinates import RESULT
from raylr.errors import DataError, InputError


def main(words: list[str]) -> None:
    """Run a command that ends well."""
    try:
        app.main(words)
    except SystemExit as ended:
        if ended.code:
            raise


def rows_of(norm: bool, size: str, params: int, lr: float) -> list[dict[str, object]]:
    name, found = f"{size}-{norm}-{lr}", []
    for tokens in (100, 200, 400, 800, 1600):
        grown = (tokens / 1600) ** (0.1 if norm else 0.6) * params**0.05
        found.append({
            "trial": name, "size": size, "params": params + 8 * norm, "lr": lr, "tokens": tokens, "step": tokens // 10,
            "loss": 3.0, "qk_norm": norm, "update_rms/embedding": 0.2 + 10 / tokens, "update_rms/router": 0.23,
            "update_rms/router/layers": "[0.22, 0.24]", "attention_logit_max": 3.0 if norm else 30.0,
            "attention_logit_max/layers": "[3, 2.5]", "attention_entropy": 2.0, "attention_entropy/layers": "[2, null]",
            "router_load_max": 1.2, "router_load_max/layers": "[1.2, 1.1]", "router_entropy/layers": "[1, 1]",
            "loss_spikes": 0.0, "activation_change/logits": grown, "activation_change/attention_logits/last": grown,
            "probe_note/attention": None,
        })  # fmt: skip
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        row
        for norm in (True, False)
        for place, size in enumerate("SML")
        for lr in (1e-3, 2e-3)
        for row in rows_of(norm, size, 1000 * 2**place, lr)
    ]
    path = tmp_path / "evaluations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_probes_are_shown_drawn_and_listed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyse", "probes", str(file.parent)])  # a folder with such a file
    out = capsys.readouterr().out
    assert "S at LR 1.00e-3, QK norm: update RMS 0.21 (embedding) to 0.23 (router), largest attention logit 3" in out
    drawn = {path.name for path in (file.parent / "figures").iterdir()}
    pictures = {f"{name}.{kind}" for name in ("update_rms", "attention", "router") for kind in ("png", "svg")}
    assert drawn == {*pictures, "probes.html"}
    is_self_contained(file.parent / "figures" / "probes.html", figures={"update-rms", "attention", "router"})
    main(["analyse", "probes", str(file), "--csv"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trial,tokens,step,quantity,module,layer,expert,value"
    assert "S-True-0.001,100,10,update_rms,router,1,,0.24" in lines
    assert len(lines) > 12 * 5 * 10


def test_stability_compares_data_and_size(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyse", "stability", str(file), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [*found] == ["with QK norm", "without QK norm"]
    one = {row["name"]: row for row in found["without QK norm"]}["attention_logits/last"]
    assert one["tokens"]["value"] == pytest.approx(0.6)
    assert one["size"]["value"] == pytest.approx(0.05, abs=1e-3)
    assert one["verdict"] == "data"
    main(["analyse", "stability", str(file), "--out", str(file.parent / "drawn")])
    assert "2 of 2 activations move faster with tokens than with parameters" in " ".join(
        capsys.readouterr().out.split()
    )
    assert (file.parent / "drawn" / "stability.png").exists()


def test_qk_norm_pairs_runs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyse", "qk-norm", str(file), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 6
    assert found[0]["measured"]["largest attention logit"] == {"with": 3.0, "without": 30.0}
    assert "update RMS of the matrices 0.21 to 0.23 with QK norm and 0.21 to 0.23 without" in found[0]["sentence"]
    main(["analyse", "qk-norm", str(file)])
    assert (file.parent / "figures" / "qk_norm.png").exists()


def test_a_coordinate_check_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def check(variant: str, slope: float) -> dict[str, object]:
        measured = [
            {"scale": scale, "seed": seed, "observable": "attention_logits", "layer": "last", "step": step,
             "std": step**0.8 * scale**slope * (1 + 0.01 * seed)}
            for scale in (1.0, 2.0, 4.0) for seed in (0, 1) for step in (0, 1, 4, 16)
        ]  # fmt: skip
        row = {"observable": "attention_logits", "layer": "last", "step": 16, "slope": slope}
        return {"variant": variant, "axis": "width", "verdict": "grows", "rows": [row], "measured": measured}

    checks = [check("standard, QK norm", 0.1), check("standard, no QK norm", 0.9), check("mup, QK norm", 0.0)]
    (tmp_path / RESULT).write_text(json.dumps({"checks": checks}))
    main(["analyse", "qk-norm", str(tmp_path), "--json"])
    (one,) = json.loads(capsys.readouterr().out)
    assert one["name"] == "standard"
    (pair,) = one["measured"].values()
    assert pair == {"with": 0.1, "without": 0.9}
    main(["analyse", "stability", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["standard, no QK norm"][0]["size"]["value"] == pytest.approx(0.9)
    assert found["standard, no QK norm"][0]["tokens"]["value"] == pytest.approx(0.8)
    assert [rows[0]["verdict"] for rows in found.values()] == ["data", "size", "data"]
    (tmp_path / RESULT).write_text("{")
    with pytest.raises(SystemExit):
        main(["analyse", "stability", str(tmp_path)])
    assert "is damaged" in capsys.readouterr().err


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="there is no"):
        read_measured(tmp_path / "nothing.jsonl")
    bad = tmp_path / "rows.csv"
    bad.write_text("trial,tokens,lr\na,1,0.1\n")
    with pytest.raises(DataError, match="rows lack params"):
        read_measured(bad)
    bad.write_text("trial,tokens,lr,params,qk_norm,grad_norm_max\na,1,0.1,5,true,2\n")
    assert read_measured(bad).rows[0] == {
        "trial": "a", "tokens": 1.0, "lr": 0.1, "params": 5.0, "qk_norm": True, "grad_norm_max": 2.0
    }  # fmt: skip
    for command, message in (
        ("stability", "no run was measured by the probe changes"),
        ("qk-norm", "nothing was meas"),
    ):
        with pytest.raises(SystemExit):
            main(["analyse", command, str(bad)])
        assert message in " ".join(capsys.readouterr().err.split())
    bad.write_text("trial,tokens,lr,params,loss\na,1,0.1,5,3.0\n")
    with pytest.raises(SystemExit):
        main(["analyse", "probes", str(bad)])
    assert "no run was measured by probes" in " ".join(capsys.readouterr().err.split())
