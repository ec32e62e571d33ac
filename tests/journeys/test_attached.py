"""A server of somebody else, through command, daemon and gateway. A double stands for it that is as strict as vLLM
about the model's name, which no engine that runs here is."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import ask, corral, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]
MODEL = "Qwen/Qwen3:8b"


class Strict(BaseHTTPRequestHandler):
    """Knows one model under /base/v1, and answers a stream with what it was asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        there = self.path == "/base/v1/models"
        self._say(200 if there else 404, {"object": "list", "data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/base/v1/chat/completions" or asked["model"] != MODEL:
            self._say(404, {"error": {"message": f"the model {asked['model']} does not exist"}})
            return
        events = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("A ", "llama.")]
        events.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
        body = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events) + b"data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _say(self, status: int, told: object) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    server.daemon_threads = True
    running = threading.Thread(target=server.serve_forever, args=(0.05,))
    running.start()
    yield server
    server.shutdown()
    running.join()
    server.server_close()


def test_it_is_watched_asked_and_left_alone(home: Path, server: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}/base"
    corral("deploy", MODEL, "--url", url, "--name", "far", "--wait")
    (replica,) = ask("ps")
    assert (replica["state"], replica["engine"], replica["pid"], replica["socket"]) == ("ready", "attach", None, None)
    assert replica["model"] == MODEL and replica["port"] == server.server_port
    assert "1x0" not in corral("ps")  # nobody knows the context of a server of somebody else
    assert "A llama." in corral("chat", "far", "What is a llama?")
    corral("stop", "far")
    until(lambda: ask("ps")[0]["state"] == "stopped")
    corral("start", "far")
    until(lambda: ask("ps")[0]["state"] == "ready")
    server.socket.close()
    lost = until(lambda: [each for each in ask("ps") if each["state"] == "backoff"])
    assert "nothing listens there" in lost[0]["reason"]
    corral("rm", "far", "--yes")
    until(lambda: not ask("ps"))
