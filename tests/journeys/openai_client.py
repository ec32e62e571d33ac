"""OpenAI's official Python client, driven by lines of JSON: a call in, what came of it out. openai_client.mjs is the
same for Node; what they are asked and what must come of it stands in test_clients.py."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import openai


def told(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def streamed(stream: Any, asked: dict[str, Any], found: dict[str, Any]) -> None:
    """Read a stream, or `take` pieces of it; says `begun` with the first."""
    found.update(pieces=0, text="", usage=None, kinds=[])
    for piece in stream:
        found["pieces"] += 1
        if found["pieces"] == 1:
            told(begun=True)
        plain = piece.model_dump()
        found["usage"] = plain.get("usage") or (plain.get("response") or {}).get("usage") or found["usage"]
        found["kinds"].append(plain.get("type"))
        for choice in plain.get("choices") or []:
            found["text"] += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        if isinstance(plain.get("delta"), str):
            found["text"] += plain["delta"]
        if found["pieces"] == asked.get("take"):
            stream.close()
            return


def call(asked: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"answers": []}

    def seen(response: Any) -> None:
        found["answers"].append([response.status_code, response.headers.get("retry-after"), time.monotonic()])
        if response.status_code == 429:
            told(limited=True)

    client = openai.OpenAI(
        base_url=asked["base"], api_key=asked["key"], max_retries=asked.get("retries", 0), timeout=60,
        http_client=openai.DefaultHttpxClient(event_hooks={"response": [seen]}),
    )  # fmt: skip
    made: Any = client
    for name in asked["call"].split("."):
        made = getattr(made, name)
    try:
        answer = made(*asked.get("of", []), **asked.get("args", {}))
        if asked.get("args", {}).get("stream"):
            streamed(answer, asked, found)
        else:
            found["id"] = getattr(answer, "_request_id", None)
            found["answer"] = answer.model_dump()
    except openai.APIError as error:
        found.update(error=type(error).__name__, message=str(error), code=error.code, kind=error.type)
        found.update(status=getattr(error, "status_code", None), id=getattr(error, "request_id", None))
    finally:
        client.close()
    return found


for line in sys.stdin:
    told(**call(json.loads(line)))
