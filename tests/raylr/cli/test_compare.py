import json

import pytest
from made_comparison import studies_of
from made_study import contents

from raylr.cli.app import main


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, words)])
    found = capsys.readouterr()
    return ended.value.code or 0, " ".join(found.out.split()), " ".join(found.err.split())


@pytest.fixture(scope="module")
def pair(texts, tmp_path_factory):
    """Two studies that were run; their target was trained for their checks alone."""
    folder = tmp_path_factory.mktemp("pair")
    for study in studies_of(texts, folder):
        study.run()
    return folder / "fitting", folder / "transfer"


def test_folders_are_read_and_nothing_is_written(pair, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = [contents(folder) for folder in pair]
    code, out, _ = run(capsys, *pair, "--seed-sd", "0.002")
    assert code == 0
    assert 'Verdict Transferred is better than fitted at "large"' in out
    assert "parametrized has no run yet; --train trains it." in out
    assert [contents(folder) for folder in pair] == before
    assert list(tmp_path.iterdir()) == []
    code, out, _ = run(capsys, *pair, "--json", "--out", tmp_path / "report")
    assert json.loads(out)["target"] == "large"
    assert (tmp_path / "report" / "comparison.html").exists()


def test_finished_runs_are_compared_by_a_column(tmp_path, capsys):
    table = tmp_path / "runs.csv"
    losses = {"mup": (3.1, 3.11), "sp": (3.0, 3.02)}
    lines = [f"{kind},{i},1e-3,{loss}" for kind, each in losses.items() for i, loss in enumerate(each)]
    table.write_text("\n".join(["parametrization,seed,lr,loss", *lines]) + "\n")
    code, out, _ = run(capsys, table, "--by", "parametrization")
    assert code == 0
    assert "mup" in out
    assert "against" in out
    code, out, _ = run(capsys, table, "--by", "parametrization", "--json", "--seed-sd", "0.001")
    assert json.loads(out)["best"] == "sp"


def test_bad_input(pair, tmp_path, capsys):
    fitting, transfer = pair
    for words, message in (
        ([transfer, fitting], "give the fitting study first"),
        ([fitting], "give the folder of a transfer study too"),
        ([fitting, transfer, "--params", "1e9"], "are for finished runs"),
        ([fitting, transfer, "--target", "deep"], "no target 'deep'"),
        ([fitting / "spec.yaml", transfer], "was not begun"),
        ([tmp_path / "nothing", transfer], "there is no spec at"),
    ):
        code, _, err = run(capsys, *words)
        assert code in (1, 2)
        assert message in err
