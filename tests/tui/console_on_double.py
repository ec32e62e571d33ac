"""The console on the double, as a program of its own: tests run it in a pseudo-terminal and look at its bytes.

Arguments: `--ascii`; `--hostile` fills every name, reason, log line and answer with what steers a terminal.
"""

import importlib.util
import sys
from pathlib import Path

from tui.app import Corral

_spec = importlib.util.spec_from_file_location("console_double", Path(__file__).with_name("double.py"))
double = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(double)

EVIL = (
    "a\x1b]52;c;ZXZpbA==\x07b\x1b]0;evil title\x1b\\c\x1b[2Jd\x1b[8me\x1bcf\x1bPq#evil\x1b\\g\x9b2Jh"
    "\x9d52;c;ZXZpbA==\x9ci\u202ej\u2066k\u200bl\u200dm\ufe0fn\u00ado\ufeffp\U000e0041q\x00r\x07s\x08t\x0eu\x7fv"
    "\u2028w\x85x" + "\u0301" * 50
)
ENTITIES = "&#27;[2J &#x9b;2J &#8238;abc &shy;&ZeroWidthSpace;&zwj; [link](javascript:evil 'x') ![img](file:///etc)"
TABLE = f"| {EVIL} | b |\n|---|---|\n| {ENTITIES} | d |"
ANSWER = f"# {EVIL}\n\n{ENTITIES}\n\n```\n{EVIL}\n{ENTITIES}\n```\n\n{TABLE}\n\n{EVIL}END"


def hostile() -> object:
    """A double whose every string from outside is hostile."""
    made = double.Double()
    long = EVIL + "long " * 2000
    made.deployed = [double.deployment("chat", reason=EVIL), double.deployment("x" + EVIL, reason=long, state=EVIL)]
    made.running = [double.replica("chat/0", reason=EVIL, engine=EVIL)]
    made.stored = [
        double.model("m" + EVIL),
        double.msgspec.structs.replace(double.model("n"), licence=EVIL, origin=EVIL),
    ]
    made.records = [
        double.record(n, actor=EVIL, object=EVIL, reason=long, outcome=EVIL, after={"k": EVIL}) for n in (1, 2)
    ]
    made.log = f"{EVIL}\n{long}\nLOGEND\n"
    made.title = "T" + EVIL
    made.pieces = [ANSWER[n : n + 7] for n in range(0, len(ANSWER), 7)]
    return made


if __name__ == "__main__":
    fake = hostile() if "--hostile" in sys.argv else double.Double()
    Corral(fake.connect, refresh_s=0.2, ascii="--ascii" in sys.argv).run()
