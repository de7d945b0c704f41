import pytest

from raylr.cli.app import main
from raylr.cli.results import EXIT_NO_MEANING
from raylr.errors import EXIT_BAD_INPUT


@pytest.fixture
def folder(carried):
    return str(carried[0].directory)


def run(capsys, *words):
    status = 0
    try:
        main(list(words))
    except SystemExit as end:
        status = int(end.code or 0)
    return status, *capsys.readouterr()


def test_a_transfer_study_is_read_by_every_command(folder, capsys, tmp_path):
    status, out, _ = run(capsys, "recipe", folder, "--for", "torch", "--target", "wide")
    assert status == 0
    assert "def optimizer(model):" in out
    assert "carried by completed_p" in out
    status, out, _ = run(capsys, "fit", folder)
    assert status == 0
    assert out.startswith("\nVerdict     Trust it")
    assert "wide: roles" in out
    status, out, _ = run(capsys, "plan", folder)
    status, out, _ = run(capsys, "report", folder, "--out", str(tmp_path))
    assert status == 0
    page = (tmp_path / "report.html").read_text()
    for text in ("The transfer to wide", "one basin", "init std", "check-1"):
        assert text in page
    assert (tmp_path / "figures" / "proxy-init-std.png").stat().st_size > 10_000
    status, out, _ = run(capsys, "transfer", f"{folder}/spec.yaml:proxy", f"{folder}/spec.yaml:deep")
    assert status == 0
    assert "m_L = 4" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe", "STUDY", "--for", "megatron"], "its recipe has one LR for all tensors"),
        (["recipe", "STUDY", "--for", "torch"], "which target"),
        (["recipe", "STUDY", "--for", "torch", "--target", "wide", "--params", "1B"], "use --target"),
        (["recipe", "zhou2026", "--for", "torch", "--target", "wide"], "--target names a target of a transfer study"),
        (["recipe", "zhou2026", "--for", "torch", "--tokens", "1B"], "--params is needed"),
        (["predict", "STUDY", "--params", "1B", "--tokens", "1B"], "has no law"),
        (["fit", "STUDY", "--out", "law.json"], "has no law"),
    ],
)
def test_what_it_has_not_is_said(folder, capsys, words, message):
    status, _, errors = run(capsys, *(folder if word == "STUDY" else word for word in words))
    assert status in (EXIT_BAD_INPUT, EXIT_NO_MEANING)
    assert message in errors
