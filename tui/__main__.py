"""`corral`: without arguments the console; with a verb, a scriptable command."""

from __future__ import annotations

import os
import sys

from tui.plain import places


def main() -> None:
    """The entry point. A console without options starts without click and the verbs: some 25 ms of its first paint."""
    alone = len(sys.argv) == 1 and "_CORRAL_COMPLETE" not in os.environ
    if alone and sys.stdin and sys.stdout and sys.stdin.isatty() and sys.stdout.isatty() and places(os.environ):
        import gc

        gc.disable()  # until the first paint; tui.app.run turns it on
        from tui.app import run

        sys.exit(run())
    from tui.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
