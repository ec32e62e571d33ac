"""The daemon's view of the gateway's listeners: what is said of each, and what is recorded."""

import pytest

from core.deployments.doors import DoorRecords, door_warnings, files_of, for_the_one_before, statuses
from core.gateway import wire
from core.paths import user_paths
from core.settings import PLAIN_HTTP, parse

NOW = 1_800_000_000.0
OPEN = {"address": "0.0.0.0:1", "url": "https://h:1", "tls": True, "fingerprint": "f", "until": NOW + 90 * 86400}


def live(*doors: wire.DoorLive | None) -> wire.Live:
    told = None if doors == (None,) else doors
    return wire.Live(requests=0, in_flight=0, queued={}, replicas=(), connections=0, spooled=0, doors=told)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, None),
        ({"until": NOW + 15 * 86400}, None),
        ({"until": NOW + 13 * 86400}, "the certificate of https://h:1 ends on 2027-01-28: make or order the next one"),
        ({"trouble": "it is mouldy"}, "https://h:1 goes on with the certificate that it has: it is mouldy"),
        ({"url": "", "trouble": "taken"}, "programs cannot reach the gateway on 0.0.0.0:1: taken"),
    ],
)
def test_what_must_be_seen_is_said(fields, words):
    said = door_warnings(statuses(live(wire.DoorLive(**{**OPEN, **fields}))), NOW)
    assert said == ([words] if words else [])


def test_the_certificate_is_that_of_the_settings_or_ours(tmp_path):
    paths = user_paths({"CORRAL_HOME": str(tmp_path), "HOME": str(tmp_path)})
    ours = files_of(parse("").gateway, paths)
    assert ours == wire.Files(str(paths.gateway_certificate), str(paths.gateway_key))
    both = parse('[gateway]\ncertificate = "/a"\ncertificate_key = "/b"').gateway
    assert files_of(both, paths) == wire.Files("/a", "/b")
    assert files_of(parse('[gateway]\ncertificate = "/a"').gateway, paths) == wire.Files("/a", "/a")


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ('"127.0.0.1:1"', "127.0.0.1:1"), ('["https://127.0.0.1:1", "[::1]:2"]', "[::1]:2"),
        ('["10.0.0.1:1"]', ""), ('[]', ""), ('""', ""),
    ],
)  # fmt: skip
def test_a_gateway_of_one_release_back_is_told_of_plain_loopback_alone(listen, told):
    plain = f'\ninsecure_plain_http = "{PLAIN_HTTP}"' if "10." in listen else ""
    assert for_the_one_before(parse(f"[gateway]\nlisten = {listen}{plain}").gateway) == told


class Books:
    """Stands for store and gate: what was recorded last, and what is."""

    def __init__(self, last=()):
        self.last, self.records = list(last), []

    async def read(self, fn):
        return self.last

    async def record(self, actor, verb, object, request, outcome, *, before, after):
        self.records.append((before, after))


async def test_each_change_is_recorded_once_over_restarts_and_replacements():
    first = {"url": "https://h:1", "certificate": "f"}
    books = Books([first])
    doors = DoorRecords(books, books)
    door = wire.DoorLive(**OPEN)
    for told in (live(door), live(None), live(door), live(wire.DoorLive(**{**OPEN, "failed": 9}))):
        await doors.told(told)
    assert books.records == []
    await doors.told(live(wire.DoorLive(**{**OPEN, "fingerprint": "g"})))
    await doors.told(live(wire.DoorLive(address="0.0.0.0:1", trouble="gone")))
    second = {"url": "https://h:1", "certificate": "g"}
    assert books.records == [([first], [second]), ([second], [])]
