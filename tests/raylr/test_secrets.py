"""A secret of the environment is in no file of a study and in no output."""

from pathlib import Path

import pytest
from made_study import spec_of, study_of

from raylr.cli.app import main

SECRET = "s3cr3t-9f1c77aa"
NAMES = ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MY_PASSWORD")


def test_no_file_and_no_output_holds_a_secret(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, SECRET)
    study = study_of(spec_of(texts), tmp_path / "study")
    study.run()
    study.end("the answer\n")
    for command in (["report"], ["status", "--json"], ["check"], ["fit"]):
        with pytest.raises(SystemExit) as end:
            main([command[0], str(study.directory), *command[1:]])
        assert not end.value.code
    shown = capsys.readouterr()
    assert "90 % interval" in shown.out
    assert SECRET not in shown.out + shown.err
    files = [path for path in study.directory.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
