"""The accounts of system mode: who the gateway and the engines run as, and whose members the daemon obeys.

An engine reads hostile files, so it must not be able to speak as an admin, to write the database or its own exit
record: it has an account of its own, which is in no group that the daemon obeys. In a per-user daemon there is one uid
for all, and no account is changed to.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

import msgspec

from core.errors import Failed
from core.settings import DaemonTable


class Account(msgspec.Struct, frozen=True):
    """A user of this host as processes get it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary ones: an engine may need `video` or `render` for a GPU."""


class Accounts(msgspec.Struct, frozen=True):
    """Those of system mode, looked up once: a look-up may block for seconds where users come from a directory."""

    gateway: Account
    engine: Account
    group: str
    group_gid: int | None
    """None: the group does not exist, so that root alone is obeyed."""


def find(table: DaemonTable) -> Accounts:
    """Look up the accounts that corral.toml names. Raises `Failed` with the line that makes what is missing."""
    gateway, engine = _account(table.gateway_user, "gateway"), _account(table.engine_user, "engines")
    try:
        gid: int | None = grp.getgrnam(table.group).gr_gid
    except KeyError:
        gid = None
    if gateway.uid == engine.uid:
        raise Failed(
            f"gateway and engines would both run as {engine.name}",
            "an engine reads hostile files and could then read every key",
            "name two accounts in corral.toml: daemon.gateway_user and daemon.engine_user",
        )
    for account in (gateway, engine):
        if gid is not None and gid in (account.gid, *account.groups):
            raise Failed(
                f"the account {account.name} is in the group {table.group}",
                "the daemon obeys that group, so an engine could act as an admin",
                f"gpasswd -d {account.name} {table.group}",
            )
    return Accounts(gateway=gateway, engine=engine, group=table.group, group_gid=gid)


def _account(name: str, what: str) -> Account:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise Failed(
            f"there is no account {name} for the {what}",
            "they never run as root",
            f"useradd --system --no-create-home --shell /usr/sbin/nologin {name}",
        ) from None
    if found.pw_uid == 0:
        raise Failed(f"the {what} would run as root", f"{name} has uid 0", "name another account in corral.toml")
    groups = tuple(sorted(set(os.getgrouplist(name, found.pw_gid)) - {found.pw_gid}))
    return Account(name, found.pw_uid, found.pw_gid, groups)


def check_program(accounts: Accounts, *paths: Path) -> None:
    """Raises `Failed` if one of the accounts can't reach a file of the program (a clone in root's home folder)."""
    for path in paths:
        for account in (accounts.gateway, accounts.engine):
            closed = barrier(path, account)
            if closed is not None:
                mode = f"{closed} is closed to it (mode {stat.S_IMODE(closed.stat().st_mode):04o})"
                here = closed in (path.absolute(), *path.absolute().parents)
                raise Failed(
                    f"the account {account.name} cannot read the program at {path}",
                    mode if here else f"a link in it leads to where {mode}",
                    "install Corral where everybody may read it: python3 -m venv /opt/corral" if here else
                    "install Corral with a Python that all may read: /usr/bin/python3 -m venv --clear /opt/corral",
                )  # fmt: skip


def barrier(path: Path, account: Account) -> Path | None:
    """The first folder above `path`, links followed, that the account may not enter, or `path` if it may not read
    that; None if it may. Only modes are looked at."""
    todo, seen = [path.absolute()], set[Path]()
    while todo:
        each = todo.pop()
        for step in (*reversed(each.parents), each):
            if step in seen:
                continue
            seen.add(step)
            if step.is_symlink():
                todo.append(step.parent / step.readlink())
            if not _may(step, account, 0o5 if step == each and step.is_dir() else 0o1 if step.is_dir() else 0o4):
                return step
    return None


def _may(path: Path, account: Account, bits: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return (found.st_mode >> 6) & bits == bits
    if found.st_gid in (account.gid, *account.groups):
        return (found.st_mode >> 3) & bits == bits
    return found.st_mode & bits == bits
