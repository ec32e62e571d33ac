"""A double of llama-server that is ready at once: what the kill rounds run beside the real engine, by its path.

It speaks what Corral asks of llama.cpp's server (health, metrics, streamed chat) on `e.sock` in its working folder. Its
answer is always the same, so that a lost or doubled piece shows. Into the file DOUBLE_COUNTS, if one is named, it
writes a line for each request: how many pieces it made, and whether that was all.
"""

import json
import os
import signal
import socket
import sys
import threading
import time

PIECES = [f"w{n} " for n in range(24)]
ECHO = "DOUBLE_ECHO" in os.environ
"""It says the last word of the question again and again."""
PAUSE_S = float(os.environ.get("DOUBLE_PAUSE_S", "0.01"))
COUNTS = os.environ.get("DOUBLE_COUNTS")


def answer(connection):
    with connection:
        try:
            while serve(connection.makefile("rb"), connection):
                pass
        except OSError:
            return


def serve(reader, connection):
    """One request; False when the other side has gone."""
    line, length = reader.readline(), 0
    if not line:
        return False
    while (header := reader.readline().strip()) != b"":
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = reader.read(length)
    if not line.startswith(b"POST"):
        text = b"llamacpp:requests_processing 0\n" if b"/metrics" in line else b'{"status":"ok"}'
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        return True
    asked = json.loads(body)
    assert asked["stream"]
    pieces = [asked["messages"][-1]["content"].split()[-1] + " "] * 24 if ECHO else PIECES
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    made, whole = 0, False
    try:
        for piece in pieces:
            event(connection, {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            made += 1
            time.sleep(PAUSE_S)
        usage = {"prompt_tokens": 4, "completion_tokens": len(pieces)}
        event(connection, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
        whole = True
        chunk(connection, b"data: [DONE]\n\n")
        chunk(connection, b"")
    finally:
        if COUNTS:
            count(made, whole)
    return True


def count(made, whole):
    descriptor = os.open(COUNTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, b"%d %d\n" % (made, whole))
    os.close(descriptor)


def event(connection, told):
    chunk(connection, b"data: " + json.dumps(told).encode() + b"\n\n")


def chunk(connection, data):
    connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))


def main():
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[sys.argv.index("--host") + 1])
        listener.listen(64)
        print("the double is ready", flush=True)
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()
