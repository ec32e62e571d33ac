"""`corral`: without arguments the console; with a verb, a scriptable command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The entry point. A console without options starts without click and the verbs: some 25 ms of its first paint."""
    if len(sys.argv) == 1 and "_CORRAL_COMPLETE" not in os.environ and sys.stdin.isatty() and sys.stdout.isatty():
        import gc

        gc.disable()  # until the first paint; tui.app.run turns it on
        from tui.app import run

        sys.exit(run())
    from tui.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
