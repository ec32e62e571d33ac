"""An attached server that asks for a key: where people put it, and where it never is. The server is a double."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import ask, corral, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]
KEY, NEXT = "sk-first-5f3a", "sk-second-91bc"


class Server(http.server.ThreadingHTTPServer):
    key = KEY


class Strict(http.server.BaseHTTPRequestHandler):
    """Answers who brings the key, and nobody else."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _may(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {self.server.key}":
            return True
        self._say(401, "application/json", b"{}")
        return False

    def _say(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self._may():
            self._say(200, "application/json", b'{"data": [{"id": "m"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self._may():
            piece = {"choices": [{"delta": {"content": "with a key"}, "finish_reason": "stop"}]}
            self._say(200, "text/event-stream", f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n".encode())


@pytest.fixture
def strict() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Strict)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def put(file: Path, key: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.touch(0o600)
    file.write_text(key + "\n")


def reason(name: str) -> str:
    return next(each["reason"] for each in ask("ps") if each["deployment"] == name)


def answers() -> bool:
    try:
        return "with a key" in corral("chat", "far", "hi")
    except AssertionError:
        return False


def test_a_key_lies_in_a_file_of_its_own_and_nowhere_else(home: Path, strict: Server) -> None:
    host = f"127.0.0.1:{strict.server_port}"
    file = home / "keys" / host
    corral("deploy", "far", "--url", f"http://{host}")
    until(lambda: "asks for a key" in reason("far"))
    assert f"put its key in {file} (mode 600)" in reason("far")
    put(file, "wrong")
    until(lambda: f"it refuses the key in {file}" in reason("far"))
    put(file, KEY)
    corral("start", "far", "--wait", "--timeout", "30")
    assert "with a key" in corral("chat", "far", "hi")
    strict.key = NEXT
    put(file, NEXT)
    until(answers)  # the file is read with each look at the server
    file.chmod(0o644)
    until(lambda: "chmod 600" in reason("far"))
    corral("shutdown")
    for path in home.rglob("*"):
        if path.is_file() and path != file and path.parent.name != "gateway":  # whose routes hold the secrets in use
            data = path.read_bytes()
            assert KEY.encode() not in data and NEXT.encode() not in data, path


def test_a_key_in_a_url_is_in_no_file(home: Path) -> None:
    for url in ("http://me:hunter2@127.0.0.1:9", "http://127.0.0.1:9/?key=hunter2"):
        assert "hunter2" not in corral("deploy", "far", "--url", url, code=2)
    corral("shutdown")
    for path in home.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path
