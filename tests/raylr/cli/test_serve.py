import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from raylr.cli import serve as module
from raylr.cli.app import main
from raylr.live import server


def run(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code or 0


def test_what_cannot_be_served_is_one_sentence(tmp_path, whole, capsys):
    assert run("serve", tmp_path / "none") == 2
    assert "there is no" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("serve", whole[0].directory, "--port", port) == 2
    assert f"port {port} of 127.0.0.1 is taken; --port 0 takes a free one" in capsys.readouterr().err
    assert run("serve", whole[0].directory, "--port", "99999") == 2
    assert run("serve", whole[0].directory, "--host", "no.such.host.invalid") == 2
    assert "is not an address of this machine" in capsys.readouterr().err


def test_a_server_for_everyone_says_that_there_is_no_password(whole, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(server.LiveServer, "serve_forever", interrupted)
    assert run("serve", whole[0].directory, "--host", "0.0.0.0", "--port", "0") == 130
    assert "there is no password" in capsys.readouterr().out
    assert run("serve", whole[0].directory, "--port", "0") == 130
    assert "password" not in capsys.readouterr().out


def test_the_command_has_the_servers_defaults():
    assert (module.HOST, module.PORT) == (server.HOST, server.PORT)


def test_it_says_the_address_and_ends_at_ctrl_c_without_a_traceback(whole):
    words = [sys.executable, "-m", "raylr", "serve", str(whole[0].directory), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=environment, text=True, **pipes) as process:
        line = process.stdout.readline()
        address = line.split(" is shown at ")[1].split(";")[0]
        with urllib.request.urlopen(f"{address}state", timeout=20) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=30)
    assert (process.returncode, printed, errors) == (130, "Ended.\n", "")
