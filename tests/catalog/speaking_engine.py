"""An engine for measurements that thinks nothing: it streams as fast as it is told, and counts tokens as words.

A double of llama.cpp's server on `e.sock` in its working folder. DOUBLE_TOKEN_S: seconds a token takes, shared by those
who are answered; DOUBLE_PROMPT_S: seconds a token of a prompt takes. DOUBLE_FAILS: it says why and ends at its start.
"""

import asyncio
import json
import os
import sys

TOKEN_S = float(os.environ.get("DOUBLE_TOKEN_S", "0.001"))
PROMPT_S = float(os.environ.get("DOUBLE_PROMPT_S", "0.0001"))


async def serve(reader, writer):
    line, length = await reader.readline(), 0
    while (header := (await reader.readline()).strip()) != b"":
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = await reader.readexactly(length)
    if not line.startswith(b"POST"):
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}')
    else:
        await answer(json.loads(body), writer)
    await writer.drain()
    writer.close()


async def answer(asked, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    words, tokens = len(asked["prompt"].split()), asked["max_tokens"]
    await asyncio.sleep(words * PROMPT_S)
    for n in range(tokens):
        if n:
            await asyncio.sleep(TOKEN_S)
        piece = {"choices": [{"text": "w "}]}
        if n == tokens - 1:
            piece["usage"] = {"prompt_tokens": words, "completion_tokens": tokens}
        writer.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
        await writer.drain()
    writer.write(b"data: [DONE]\n\n")


async def main():
    server = await asyncio.start_unix_server(serve, "e.sock")
    async with server:
        await server.serve_forever()


if "DOUBLE_FAILS" in os.environ:
    print("0.1 E the model's weights are made of cheese", file=sys.stderr)
    sys.exit(1)
asyncio.run(main())
