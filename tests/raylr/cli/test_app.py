import json
import subprocess
import sys
import time

import pytest

from raylr.cli.app import EXIT_BAD_INPUT, main


def run(capsys, *arguments):
    """Run the command line; return its exit status, output and errors."""
    status = 0
    try:
        main(list(arguments))
    except SystemExit as end:
        status = end.code or 0
    return status, *capsys.readouterr()


def test_predict_from_a_published_law_matches_the_papers_table_4(capsys):
    status, out, _ = run(capsys, "predict", "zhou2026", "--params", "4e9", "--tokens", "120e9", "--json")
    assert status == 0
    assert json.loads(out)["lr"] == pytest.approx(5.55e-4, rel=0.1)


def test_predict_says_what_it_does_not_know(capsys):
    _, out, _ = run(capsys, "predict", "zhou2026", "--params", "12B", "--tokens", "500B")
    assert "2.50e-4" in out
    assert "interval unknown" in out
    assert "4 times beyond" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict", "zhou2025", "--params", "1", "--tokens", "1"], "did you mean 'zhou2026'?"),
        (["predict", "zhou2026", "--params", "many", "--tokens", "1"], "--params: 'many' is not a count"),
        (["predict", "zhou2026", "--params", "1", "--tokens", "-1"], "--tokens"),
        (["predict", "zhou2026", "--params", "1", "--tokens", "1", "--level", "2"], "--level"),
        (["predict", "runs/none/law.json", "--params", "1", "--tokens", "1"], "there is no runs/none/law.json"),
        (["search", "no-such-spec.yaml"], "there is no spec at no-such-spec.yaml"),
        (["fit", "no-such-study"], "no-such-study holds no study"),
        (["report", "no-such-study"], "no-such-study holds no study"),
        (["data", "no-such-file.txt", "--out", "corpus"], "there is no no-such-file.txt"),
        (["export", "no-such-study"], "give --hf DIR"),
        (["export", "x", "--hf", "y", "--optuna", "sqlite:///z"], "give --hf DIR"),
        (["export", "x", "--optuna", "sqlite:///z", "--dtype", "bf16"], "go with --hf"),
        (["export", "x", "--optuna", "sqlite:///z", "--trust-checkpoint"], "go with --hf"),
        (["export", "no-such-checkpoint", "--hf", "model"], "there is no checkpoint at no-such-checkpoint"),
        (["export", "no-such-study", "--optuna", "sqlite:///z"], "no-such-study holds no study"),
        (["predict", "zhou2026", "--params", "1"], "--tokens"),
        (["serch"], "serch"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == EXIT_BAD_INPUT
    assert sentence in out + err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_init_writes_a_spec_that_loads_and_never_overwrites(capsys, tmp_path):
    from raylr.quickstart import quickstart_spec
    from raylr.spec import load_spec

    file = tmp_path / "study.yaml"
    assert run(capsys, "init", str(file))[0] == 0
    assert load_spec(file) == quickstart_spec()
    assert run(capsys, "init", str(file))[0] == EXIT_BAD_INPUT


def test_help_needs_nothing_heavy():
    code = (
        "import sys, raylr.cli\ntry:\n raylr.cli.main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    )
    began = time.perf_counter()
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert time.perf_counter() - began < 20  # a hang, not a benchmark
    for heavy in ("torch", "ray", "deepspeed", "matplotlib", "scipy", "pandas", "optuna", "pyarrow"):
        assert f"'{heavy}'" not in loaded


def test_importing_raylr_is_light():
    heavy = "('torch', 'ray', 'deepspeed', 'matplotlib')"
    code = f"import raylr, raylr.analysis, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_study_is_to_be_had_from_the_package_itself():
    import raylr

    assert raylr.FittingStudy.__module__ == "raylr.study"
    assert set(raylr.__all__) <= set(dir(raylr))
    with pytest.raises(AttributeError, match="FitingStudy"):
        _ = raylr.FitingStudy
