"""`corral audit accept`: what is wrong is shown, asked about, and told as accepted from then on."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command import ask, corral, until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


def tamper(home: Path, sql: str) -> None:
    (database,) = home.glob("*/corral.db")
    db = sqlite3.connect(database)
    db.executescript(sql)
    db.close()


def test_a_fault_is_shown_and_accepted_and_no_longer_a_warning(home: Path) -> None:
    corral("ps")
    assert "nothing to accept" in corral("audit", "accept", "--reason", "why")
    tamper(home, "DROP TRIGGER audit_keeps_content; UPDATE audit SET actor = 'nobody' WHERE seq = 1")
    assert "--reason" in corral("audit", "accept", code=2)
    assert "empty" in corral("audit", "accept", "--reason", " ", code=2)
    told = corral("audit", "accept", "--reason", "a test", code=2)
    assert "record 1 was changed" in told and "triggers" in told and "--yes" in told
    error = json.loads(corral("audit", "accept", "--reason", "a test", "--json", code=2))
    assert error["details"]["faults"][0] == "record 1 was changed"
    assert any("record 1 was changed" in line for line in ask("status")["daemon"]["warnings"])
    told = corral("audit", "verify", code=1)
    assert "record 1 was changed" in told and "also: " in told and "triggers" in told, "all that is wrong"
    told = corral("audit", "accept", "--reason", "a test", "--yes")
    assert "a fault at record 1 (changed) was accepted by" in told and told.rstrip().endswith("a test")
    report = ask("audit", "verify")
    assert report["ok"] and [each["reason"] for each in report["accepted"]] == ["a test", "a test"]
    status = ask("status")
    assert status["audit_ok"] and not any("chain" in line for line in status["daemon"]["warnings"])
    corral("shutdown")
    corral("ps")
    until(lambda: "accepted" in ask("status")["audit_message"])
    (record,) = ask("audit", "ls", "--verb", "audit.accept")
    assert (record["outcome"], record["object"], record["reason"]) == ("done", "audit:chain", "a test")
    tamper(home, "DROP TRIGGER audit_keeps_content; UPDATE audit SET actor = 'others' WHERE seq = 1")
    assert "no longer those" in corral("audit", "verify", code=1)


def test_only_the_owner_and_root_accept(home: Path) -> None:
    """The daemon takes its caller for an admin who does not own it."""
    stand_in = (
        "import core.access.rights as rights; from core.nouns import Grant, Subject\n"
        "rights.Rights.almighty = lambda self, actor: ''\n"
        "admin = Grant(id='g', what='admin', subject=Subject(kind='team', name='all'), by='root', at=0.0)\n"
        "rights.Rights.of = lambda self, actor, now: [(admin, self.permissions_of('admin'))]\n"
        "import msgspec; from core.api.peer import Names; old = Names.actor\n"
        "async def eve(self, s, t): return msgspec.structs.replace(await old(self, s, t), uid=4242, name='eve')\n"
        "Names.actor = eve\n"
        "from core.__main__ import main; main()\n"
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", stand_in], stdin=subprocess.DEVNULL)
    try:
        until(lambda: list(home.glob("*/corral.sock")))
        tamper(home, "DROP TRIGGER audit_keeps_content; UPDATE audit SET actor = 'nobody' WHERE seq = 1")
        assert "may not audit.accept" in corral("audit", "accept", "--reason", "mine", "--yes", code=4)
        assert "changed" in corral("audit", "verify", code=1)
    finally:
        process.terminate()
        process.wait(30)
