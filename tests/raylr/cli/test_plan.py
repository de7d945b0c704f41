import json

import pytest

from raylr.cli.app import main


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words])
    found = capsys.readouterr()
    return ended.value.code or 0, found.out, found.err


def test_a_study_that_was_begun_shows_what_it_has_spent(whole, capsys):
    code, out, _ = run(capsys, str(whole[0].directory), "--gpu", "A100")
    assert code == 0
    for word in ("S", "M", "search", "check", "full grid", "A100 hours"):
        assert word in out
    assert "Spent so far:" in out
    assert "% of the plan" in out


def test_json_and_bad_input(whole, capsys):
    code, out, _ = run(capsys, str(whole[0].directory / "spec.yaml"), "--json")
    assert code == 0
    assert json.loads(out)["grid_tokens"] > 0
    code, _, err = run(capsys, "--mfu", "40")
    assert code == 2
    assert "mfu is the share" in err
