import gzip
import http.client
import json
import threading

import pytest

from raylr.errors import InputError
from raylr.live.board import Block, Board
from raylr.live.server import LiveServer, allowed


@pytest.fixture(scope="module")
def served():
    board = Board(["all"])
    board.put("all", [Block(id="a", html="<p>text</p>" * 200)])
    requested = []
    with LiveServer(board, port=0, requested=lambda: requested.append(1)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, requested
        server.shutdown()
        thread.join()


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_the_page_and_its_scripts_are_there_and_say_how_long_they_may_be_kept(served):
    server, requested = served
    answer, body = ask(server)
    assert answer.status == 200
    assert answer.getheader("Cache-Control") == "no-store"
    assert "script-src 'self'" in answer.getheader("Content-Security-Policy")
    assert not requested
    page = body.decode()
    scripts = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert len(scripts) == 3
    for script in scripts:
        found, code = ask(server, f"/{script}", **{"Accept-Encoding": "gzip"})
        assert found.status == 200
        assert "immutable" in found.getheader("Cache-Control")
        assert len(gzip.decompress(code)) > 1000


def test_the_state_has_what_changed_since(served):
    server, requested = served
    first = json.loads(ask(server, "/state")[1])
    assert list(first["blocks"]) == ["a"]
    assert requested
    path = f"/state?server={first['server']}&since={first['version']}"
    assert json.loads(ask(server, path)[1])["blocks"] == {}
    for wrong in ("since=x", "since=-1", "since=99999999999999999999999", "server=%00", "&&&=", "since=%D9%A3"):
        assert json.loads(ask(server, f"/state?{wrong}")[1])["blocks"]
    answer, body = ask(server, "/state", **{"Accept-Encoding": "gzip, br"})
    assert answer.getheader("Content-Encoding") == "gzip"
    assert json.loads(gzip.decompress(body))["blocks"] == first["blocks"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MADEUP"])
def test_nothing_but_get_and_head_is_answered(served, method):
    answer, _ = ask(served[0], "/state", method)
    assert answer.status == 405
    assert answer.getheader("Allow") == "GET, HEAD"


def test_head_is_get_without_a_body(served):
    answer, body = ask(served[0], "/", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert int(answer.getheader("Content-Length")) > 1000


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/spec.yaml",
        "/spec.yaml",
        "//etc/passwd",
        "/live.js/../..",
        "/state/",
        "/\\..",
        "/?",
        "*",
    ],
)
def test_a_path_is_one_of_a_list(served, path):
    answer, body = ask(served[0], path)
    assert (answer.status == 404) is (path not in ("/?",))
    assert b"root:" not in body


def test_a_name_that_is_not_this_machines_is_refused(served):
    server = served[0]
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "a@127.0.0.1",
    ):
        answer, body = ask(server, "/state", Host=host)
        assert answer.status == 403, host
        assert b"blocks" not in body
    for host in ("localhost", f"localhost:{server.server_port}", "127.0.0.1:1", "[::1]:80", "LocalHost"):
        assert ask(server, "/state", Host=host)[0].status == 200, host


def test_a_server_for_others_answers_to_its_own_names():
    assert allowed("login.cluster:80", {"login.cluster"})
    assert allowed("10.0.0.7", set())
    for host in ("[::1", "[]", ":80", "a b", "127.0.0.1/x", "\udcff"):
        assert not allowed(host, {"localhost"}), host


def test_errors_are_plain_text_and_repeat_nothing_of_the_request(served):
    answer, body = ask(served[0], "/<script>alert(1)</script>")
    assert answer.getheader("Content-Type").startswith("text/plain")
    assert b"script" not in body


def test_a_request_that_is_none_does_no_harm(served):
    import socket

    with socket.create_connection(("127.0.0.1", served[0].server_port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert b"nonsense" not in client.recv(10_000)
    assert ask(served[0])[0].status == 200


def test_several_readers_at_once(served):
    server, results = served[0], []
    readers = [threading.Thread(target=lambda: results.append(ask(server, "/state")[0].status)) for _ in range(12)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert results == [200] * 12


def test_a_port_that_is_taken_and_a_host_that_is_elsewhere_are_said(served):
    port = served[0].server_port
    with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is taken; --port 0"):
        LiveServer(Board([]), port=port)
    with pytest.raises(InputError, match="is not an address of this machine"):
        LiveServer(Board([]), host="192.0.2.1", port=0)
    with pytest.raises(InputError, match="a number from 0 to 65535"):
        LiveServer(Board([]), port=70_000)
