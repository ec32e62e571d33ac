"""`python -P -m core`: the daemon. What must be so on this host before it begins, and what is said where it is not."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from core import fulldisk
from core.access import accounts
from core.access.accounts import Accounts
from core.daemon import Daemon
from core.errors import Conflict, CorralError, Failed
from core.hostcheck import DaemonLock, check_socket, clear_socket, make_folders, refuse_network
from core.logfile import LogFile
from core.memory import keep_in_memory, no_dumps
from core.paths import system_paths, user_paths
from core.settings import Settings, load

log = logging.getLogger("corral")


def _accounts(settings: Settings) -> Accounts:
    """System mode: root, with the accounts there and the program where they can read it. Raises `Failed`."""
    if os.getuid() != 0:
        raise Failed(
            "only root runs the shared daemon", "engines and gateway get accounts of their own",
            "use systemd (`corral daemon --print-unit`), or leave --system away for a daemon of your own",
        )  # fmt: skip
    found = accounts.find(settings.daemon)
    accounts.check_program(found, Path(sys.executable), Path(__file__).parent)
    return found


def main() -> int:
    """Run the daemon; 0 when it was told to stop, or when another one runs already and this is not `--foreground`."""
    parser = argparse.ArgumentParser(prog="python -P -m core", description="the Corral daemon")
    parser.add_argument("--foreground", action="store_true", help="log to standard error")
    parser.add_argument("--system", action="store_true", help="the shared daemon of this host")
    args = parser.parse_args()
    os.umask(0o077)
    os.chdir("/")
    no_dumps()
    swapped = keep_in_memory()  # before any key or chat is read
    lock: DaemonLock | None = None
    try:
        paths = system_paths() if args.system else user_paths()
        check_socket(paths.socket)
        refuse_network(paths.database)
        settings = load(paths.config)
        found = _accounts(settings) if args.system else None
        make_folders(paths, found)
        lock = DaemonLock(paths.daemon_lock)
        try:
            lock.take()
        except Conflict as error:
            print(f"corral: {error}", file=sys.stderr)  # noqa: T201
            return 1 if args.foreground else 0
        clear_socket(paths.socket)
        logfile = LogFile(None if args.foreground else paths.daemon_log)
        logfile.begin(settings.daemon)
        if swapped:
            log.warning("keys and what passes through may be written to swap: %s", swapped)
        asyncio.run(Daemon(paths, settings, logfile, found, swapped).serve())
    except CorralError as error:
        print(f"corral: {error}", file=sys.stderr)  # noqa: T201
        return error.exit
    except OSError as error:
        if not fulldisk.is_full(error):
            raise
        # Room or inodes: what was given back when it stopped can't be told apart any more.
        why, shown = fulldisk.why(error.errno, "the disk"), f"`df -h {paths.state}` and `df -i` show of what"
        told = fulldisk.lacks(paths.state) or f"{why}: {fulldisk.todo(error.errno)} ({shown})"
        print(f"corral: {told}", file=sys.stderr)  # noqa: T201
        return Failed.exit
    finally:
        if lock is not None:
            lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
