"""A secret is in no file of a study and in no output, and nothing is sent to another machine."""

import socket
from pathlib import Path
from typing import Any

import pytest
from made_study import spec_of, study_of

from raylr.cli.app import main
from raylr.errors import InputError, SpecError, without_credentials
from raylr.spec import load_spec

SECRET = "s3cr3t-9f1c77aa"
NAMES = ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MY_PASSWORD")


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of this process to another machine is an error."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "localhost", "::1")):
            raise AssertionError(f"a connection to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


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


def failure(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(command)
    shown = capsys.readouterr()
    return shown.out + shown.err


@pytest.mark.parametrize(
    "command",
    [
        ["search", "--out", f"s3://key:{SECRET}@bucket/study"],
        ["status", f"hdfs://user:{SECRET}@host/study"],
        ["fit", f"https://host/runs?api_key={SECRET}"],
        ["import", f"https://me:{SECRET}@host/runs", "--out", "runs"],
    ],
)
def test_no_message_holds_the_credentials_of_an_address(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = failure(command, capsys)
    assert "raylr: " in message
    assert SECRET not in message
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_addresses_are_shown_without_credentials() -> None:
    assert str(InputError(f"cannot reach postgresql://me:{SECRET}@host/db")) == "cannot reach postgresql://…@host/db"
    assert without_credentials("http://host/?a=1&sig_token=xyz&b=2") == "http://host/?a=1&sig_token=…&b=2"
    plain = "s3://bucket/folder?endpoint_override=127.0.0.1:9 and a@b.c, lr=1e-3"
    assert without_credentials(plain) == plain


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("WANDB_API_KEY", True),
        ("HF_TOKEN", True),
        ("DB_PASSWORD", True),
        ("EOS_TOKEN", False),
        ("OMP_NUM_THREADS", False),
    ],
)
def test_a_spec_holds_no_secret(name: str, refused: bool, tmp_path: Path) -> None:
    text = f"""
name: own
command: {{run: ["true", "{{lr}}"], env: {{{name}: "{SECRET}"}}}}
sizes: {{S: {{params: 1e4}}}}
train: {{batch_tokens: 1024, schedule: constant}}
budgets: 20k
lr: {{low: 1e-4, high: 1e-1}}
"""
    (tmp_path / "own.yaml").write_text(text)
    if not refused:
        load_spec(tmp_path / "own.yaml", check_files=False)
        return
    with pytest.raises(SpecError, match=f"env: {name} looks like a password or a key") as error:
        load_spec(tmp_path / "own.yaml", check_files=False)
    assert SECRET not in str(error.value)
