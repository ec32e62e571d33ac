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
    """Stands for store and gate: what was recorded, the newest first, and what is."""

    def __init__(self, *last):
        self.last, self.records = list(last), []

    async def read(self, fn):
        return self.last

    async def record(self, actor, verb, object, request, outcome, *, before, after):
        self.records.append((before, after))
        self.last.insert(0, (NOW + len(self.records), after))


async def test_each_change_is_recorded_once_over_restarts_and_replacements():
    first = {"url": "https://h:1", "certificate": "f"}
    books = Books((NOW, [first]))
    doors = DoorRecords(books, books)
    door = wire.DoorLive(**OPEN)
    for told in (live(door), live(None), live(door), live(wire.DoorLive(**{**OPEN, "failed": 9}))):
        await doors.told(told)
    assert books.records == []
    await doors.told(live(wire.DoorLive(**{**OPEN, "fingerprint": "g"})))
    await doors.told(live(wire.DoorLive(address="0.0.0.0:1", trouble="gone")))
    second = {"url": "https://h:1", "certificate": "g"}
    assert books.records == [([first], [second]), ([second], [])]


def at(*ports):
    return [{"url": f"http://127.0.0.1:{port}", "certificate": ""} for port in ports]


def open_at(*ports):
    return live(*(wire.DoorLive(address=f"127.0.0.1:{p}", url=f"http://127.0.0.1:{p}", tls=False) for p in ports))


async def test_who_used_the_old_address_is_told_the_new_one_for_a_week():
    """Once, by an event; and by a warning, also of a daemon that starts later."""
    now, said = [NOW], []
    books = Books((NOW - 9e6, at(8620)))
    doors = DoorRecords(books, books, lambda: now[0])
    doors.on_moved.append(said.append)
    await doors.told(open_at(8620))
    assert doors.troubles() == said == []
    await doors.told(live(wire.DoorLive(address="127.0.0.1:8620", trouble="taken")))  # tells of itself
    assert doors.troubles() == said == []
    await doors.told(open_at(8621))
    (words,) = doors.troubles()
    assert words.startswith("programs find the gateway at http://127.0.0.1:8621 since 20")
    assert words.endswith(", and no more at http://127.0.0.1:8620: tell those who use it")
    assert said == [words]
    later = DoorRecords(books, books, lambda: now[0])
    later.on_moved.append(said.append)
    await later.told(open_at(8621))
    assert later.troubles() == [words] and said == [words]
    now[0] += 7 * 86400 + 3
    assert later.troubles() == []


@pytest.mark.parametrize("recorded", [(), (at(1),), (at(1, 2), at(1)), (at(2, 1), at(1, 2)), (at(1), [], at(1))])
async def test_nothing_has_moved_where_what_was_open_still_is(recorded):
    books = Books(*((NOW, each) for each in recorded))
    doors = DoorRecords(books, books, lambda: NOW)
    await doors.told(open_at(*(each["url"].rpartition(":")[2] for each in (recorded[0] if recorded else at(1)))))
    assert doors.troubles() == []


async def test_one_that_comes_back_is_told_too():
    books = Books((NOW, at(1)), (NOW, at(2)), (NOW - 5, at(1)))
    doors = DoorRecords(books, books, lambda: NOW)
    await doors.told(open_at(1))
    assert "at http://127.0.0.1:1 since" in doors.troubles()[0]
