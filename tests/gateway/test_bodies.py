"""A server of somebody else may read JSON otherwise than the gateway does: nothing gets past it by that."""

from __future__ import annotations

import json

import pytest

from core.gateway.asked import Asked
from core.gateway.bodies import unambiguous
from core.gateway.errors import Refusal

NAMES = ["Model", "MODEL", "Stream", "maX_tokens", "N", "\u017ftream", "stream_option\u017f", "max_to\u212aens"]
"""The last three: letters that Go takes for s and k."""


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_another_case_is_refused(name):
    body = json.dumps({"model": "chat", name: 1}).encode()
    with pytest.raises(Refusal, match="this field is called"):
        unambiguous(body, "m")
    escaped = body.replace(name.encode(), "".join(f"\\u{ord(each):04x}" for each in name).encode())
    with pytest.raises(Refusal, match="this field is called"):
        unambiguous(escaped, "m")


def test_every_field_that_the_gateway_reads_is_told_apart():
    for name in Asked.__struct_fields__:
        with pytest.raises(Refusal):
            unambiguous(json.dumps({name.upper(): 1}).encode(), "m")


def test_of_a_name_that_stands_there_twice_the_one_goes_on_that_was_read():
    body = b'{"model":"other","max_tokens":9,"mod\\u0065l":"chat","max_tokens":5,"Other":{"Model":1}}'
    made = unambiguous(body, "m")
    assert made.count(b"max_tokens") == 1 and made.count(b'"model"') == 1
    assert json.loads(made) == {"model": "m", "max_tokens": 5, "Other": {"Model": 1}}


async def test_it_is_refused_where_somebody_else_s_server_answers_and_there_alone(gateway, stub):
    await gateway.route(stub)
    asked = {"model": "chat", "Model": "other", "messages": []}
    assert b" 200 " in await gateway.post(asked)
    await gateway.change(asks_for="m")
    refused = await gateway.post(asked)
    assert b" 400 " in refused and b"this field is called 'model'" in refused
    assert len(stub.bodies) == 1
    assert b" 200 " in await gateway.post({"model": "chat", "messages": []})
    assert json.loads(stub.bodies[-1]) == {"model": "m", "messages": []}
