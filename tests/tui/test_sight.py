"""What must be seen at a glance: what is wrong with the daemon, why a deployment is down, how a replica fared."""

import msgspec
import pytest

from core import program_version
from core.errors import VersionMismatch
from tui.screens.deploy import DeployForm, told
from tui.screens.room import Note
from tui.state import PAST_KEPT, Past
from tui.verbs.models import print_plan
from tui.widgets.trace import Trace
from tui.words import moment

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])


BOTH = "2 warnings: The audit chain is broken: record 2 was changed; The disk is nearly full"


def unwell(fake, *warnings, **fields):
    """Let the daemon say this of itself."""
    whole = fake.picture

    async def picture():
        found = await whole()
        daemon = msgspec.structs.replace(found.status.daemon, warnings=warnings)
        return msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, daemon=daemon, **fields))

    fake.picture = picture


@SIZES
async def test_a_daemon_of_another_release_is_said_with_what_to_do(console, fake, size):
    whole = fake.picture

    async def picture():
        found = await whole()
        daemon = msgspec.structs.replace(found.status.daemon, version="9.9.9")
        return msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, daemon=daemon))

    fake.picture = picture
    told = f"the daemon is 9.9.9 and this program {program_version()}: `corral shutdown` (models run on), then any verb"
    async with console("2", size=size) as it:
        await it.until(lambda: told in " ".join(it.text.split()))
        await it.until("live")


@SIZES
async def test_a_new_daemon_with_another_interface_is_said_and_ends_the_waiting(console, fake, size):
    """As after an update under an open console."""

    async def picture():
        raise VersionMismatch("they speak different versions", "", "`corral shutdown` (models run on), then any verb")

    async with console(size=size) as it:
        await it.until("live")
        fake.picture = picture
        fake.push("resync", "", None)
        await it.until("failed")
        told = "they speak different versions; `corral shutdown` (models run on), then any verb"
        await it.until(lambda: told in " ".join(it.text.split()))


@SIZES
async def test_what_the_daemon_says_of_itself_stands_on_every_screen_and_covers_nothing(console, fake, size):
    unwell(fake, "The disk is nearly full", audit_ok=False, audit_message="record 2 was changed")
    async with console(size=size) as it:
        for key, word in (("2", "replica"), ("3", "gemma"), ("9", "deployments.create"), ("5", "First"), ("1", "cpu")):
            await it.press(key)
            await it.until(lambda: BOTH in " ".join(it.text.split()))
            await it.until(word)
            assert it.text.split("\n")[0].rstrip().endswith("live") and "? Help" in it.text.split("\n")[-1]
        await it.press("2", "d")
        await it.until(lambda: isinstance(it.app.screen, DeployForm))
        await it.until(lambda: BOTH in " ".join(it.text.split()))


async def test_a_healthy_daemon_takes_no_line(console):
    async with console("2") as it:
        await it.until("replica")
        assert not it.app.screen.query_one("#health", Note).display
        assert it.text.split("\n")[1].startswith(" deployment")


@SIZES
async def test_state_since_and_reason_of_what_is_wrong_are_seen_at_both_sizes(console, fake, doubles, size):
    reason = "the engine ended with signal 9 (killed) four times in a minute: it needs more memory. Deploy it smaller"
    fake.deployed = [doubles.deployment("chat", state="failed", reason=reason, since=doubles.NOW)]
    for screen in ("1", "2"):
        async with console(screen, size=size) as it:
            await it.until("failed")
            head = next(row for row in it.text.split("\n") if "deployment" in row and "state" in row)
            assert "since" in head and "reason" in head
            await it.until("the engine ended")
    async with console("2", size=size) as it:
        await it.until("Deploy it smaller")  # the whole of it, below the table
        assert moment(doubles.NOW) in it.text


async def test_the_last_minutes_of_a_replica_are_drawn(console, fake, doubles):
    fake.running = [
        doubles.replica("chat/0", cpu_percent=50.0, anon_bytes=100 * doubles.MIB, pss_bytes=90 * doubles.MIB)
    ]
    async with console("2") as it:
        await it.until("no figures yet")
        assert "90.0 MiB" in it.text
        fake.push("sample", "node:local", doubles.sample(doubles.NOW))
        await it.until("100 MiB")
        busy = doubles.replica("chat/0", cpu_percent=100.0, tokens_per_second=40.0, anon_bytes=100 * doubles.MIB)
        fake.push("replica", "replica:chat/0", busy)
        for n in range(1, 4):
            fake.push("sample", "node:local", doubles.sample(doubles.NOW + 5 * n))
        await it.until("▄███")
        assert "40.0" in it.text
        await it.pilot.resize_terminal(80, 16)
        await it.until(lambda: not it.app.screen.query_one(Trace).display)


async def test_a_replica_that_stands_still_draws_nothing_anew(console, fake, doubles):
    async with console("2") as it:
        await it.until("no figures yet")
        fake.push("sample", "node:local", doubles.sample(doubles.NOW))
        await it.until("the last 5 minutes")
        for n in range(1, 80):
            fake.push("sample", "node:local", doubles.sample(doubles.NOW + 5 * n))
        await it.until(lambda: len(it.app.state.past["chat/0"].columns) == PAST_KEPT)
        await it.pilot.pause(0.5)
        trace, drawn = it.app.screen.query_one(Trace), []
        trace.refresh = lambda *a, **k: drawn.append(a)
        fake.push("sample", "node:local", doubles.sample(doubles.NOW + 400))
        await it.until(lambda: it.app.state.samples[-1].time == doubles.NOW + 400)
        await it.pilot.pause(0.5)
        assert not drawn


def test_a_gap_is_kept_as_one_and_a_column_is_a_mean(doubles):
    past = Past()
    for now, cpu in ((100.0, 10.0), (101.0, 30.0), (115.0, 5.0)):
        past.add(now, doubles.replica("chat/0", cpu_percent=cpu))
    assert [column and column[0] for column in past.columns] == [20.0, None, None, 5.0]
    past.add(50.0, doubles.replica("chat/0", cpu_percent=7.0))  # the clock was set back
    assert past.columns[-1][0] == 7.0
    past.add(10_000.0, doubles.replica("chat/0"))
    assert len(past.columns) == PAST_KEPT


# ---------------------------------------------------------------------------------------- the deploy form


async def test_enter_goes_through_the_fields_and_deploys_from_the_last(console, fake):
    async with console("2", size=(80, 24)) as it:
        await it.until("replica")
        await it.press("d")
        await it.until("enter Next field")
        await it.press("enter")
        await it.until(lambda: it.app.focused.id == "field-name")
        assert not [c for c in fake.calls if c[0] == "deploy"]
        it.app.focused.value = "embed"
        for _ in range(11):
            await it.press("enter")
        await it.until("enter Deploy")
        await it.press("enter")
        await it.until("embed is being started; l shows its log")
        assert it.app.current_mode == "deployments" and it.app.screen.table().key == "embed"
        assert [c[0] for c in fake.calls].count("deploy") == 1


async def test_from_models_a_deployment_is_seen_to_start(console, fake):
    async with console("3") as it:
        await it.until("gemma")
        await it.press("d")
        await it.until("Fits")
        await it.type("x")
        await it.press("ctrl+s")
        await it.until(lambda: it.app.current_mode == "deployments" and it.app.screen.ROOM == "deployments")


async def test_the_plan_says_what_is_set_aside_and_why_it_is_more_than_is_used(fake, doubles):
    plan = await fake.fit(doubles.DeploymentSpec(name="chat", model="smollm2"))
    words = told(msgspec.structs.replace(plan, reserved_bytes=1000 * doubles.MIB))
    assert "sets 300 MiB aside a replica, 3.4 GiB may be had" in words and "promised to other replicas" in words
    assert "Just ready 240 MiB, in use 250 MiB" in words and "at most 260 MiB with all slots busy" in words
    assert "the rest is the engine's cache" in words
    assert "DOES NOT FIT" in told(msgspec.structs.replace(plan, fits=False))


async def test_the_lines_of_fit_say_that_the_cache_of_prompts_comes_beside_the_most(fake, doubles, capsys):
    print_plan(await fake.fit(doubles.DeploymentSpec(name="chat", model="smollm2")))
    most, reserved = [each for each in capsys.readouterr().out.split("\n") if each.startswith(("at most", "reserved"))]
    assert "260 MiB" in most and most.endswith("beside earlier prompts")
    assert "300 MiB" in reserved and "all: that with 5 %, 32 MiB and the engine's cache of earlier prompts" in reserved


@pytest.mark.parametrize("screen", ["1", "2", "3", "5", "9"])
async def test_on_a_tiny_terminal_connection_state_and_keys_are_still_seen(console, screen):
    async with console(screen, size=(120, 36)) as it:
        await it.pilot.resize_terminal(40, 10)
        await it.until(lambda: it.text.count("\n") == 9)
        await it.until(lambda: it.text.split("\n")[0].rstrip().endswith("live"))
        assert "? Help" in it.text.split("\n")[-1]
        if screen in "12":
            assert "embed" in it.text and "failed" in it.text
        await it.press("colon")
        await it.until("enter does it, esc leaves")


async def test_what_was_stopped_by_hand_is_not_missed(console, fake, doubles):
    fake.deployed = [
        doubles.deployment("chat"), doubles.deployment("old", wanted="stopped", state="stopped", ready=0),
    ]  # fmt: skip
    async with console("1", size=(80, 24)) as it:
        await it.until("1 of 1 deployments ready, 1 stopped, models:")


DIED = (
    "the daemon died 3 times within 10 minutes: see `corral audit ls --verb daemon.died`, the kernel's log"
    " (out of memory?) and /home/ann/.local/state/corral/0badcafe/daemon.log"
)


@pytest.mark.parametrize("screen", ["1", "2", "3", "5", "9"])
async def test_a_long_warning_takes_one_line_without_half_a_command_and_a_key_shows_all_of_it(console, fake, screen):
    unwell(fake, DIED)
    async with console(screen, size=(80, 24)) as it:
        await it.until("! the daemon died 3 times within 10 minutes: see... (! shows all)")
        lines = it.text.split("\n")
        (at,) = [n for n, row in enumerate(lines) if "the daemon died" in row]
        assert lines[at].rstrip().endswith("(! shows all)") and "daemon.log" not in lines[at + 1]
        await it.press("exclamation_mark")
        await it.until(lambda: DIED.replace(" ", "") in "".join(it.text.split()))


async def test_on_a_tiny_terminal_a_warning_is_a_mark_and_the_chat_can_be_read(console, fake, doubles):
    unwell(fake, DIED)
    fake.turns = [doubles.Turn(id="t", chat="c1", n=1, question="why", answer="Hello", state="done", asked_at=0.0)]
    async with console("5", size=(20, 5)) as it:
        await it.press("enter")
        await it.until("Hello")
        assert "! ● live" in it.text and "died" not in it.text
