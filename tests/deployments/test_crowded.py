"""That an address is full is said at once, then each minute, and for a while after."""

import msgspec

from core.deployments.crowded import FOLD_S, SAID_S, Crowded
from core.gateway import wire

LIVE = wire.Live(requests=0, in_flight=0, queued={}, replicas=(), connections=0, spooled=0)


def test_it_is_said_at_once_and_then_once_a_minute() -> None:
    now, said = 1000.0, []
    crowded = Crowded(lambda: 512, lambda: now)
    crowded.on_crowded.append(said.append)

    def told(evicted: int, refused: int = 0) -> None:
        live = msgspec.structs.replace(LIVE, evicted=evicted, refused=refused, crowded="127.0.0.1")
        crowded.told(live)

    told(0)
    assert not said and not crowded.troubles()
    told(1)
    assert len(said) == 1 and said[0].startswith("127.0.0.1 has all 512 connections") and "1 idle ones" in said[0]
    for n in range(2, 10):
        told(n, 1)
    warning = crowded.troubles()
    assert len(said) == 1 and warning
    now += FOLD_S
    told(9, 1)
    assert len(said) == 2 and "8 idle ones were closed for new ones, 1 new ones refused" in said[1]
    assert crowded.troubles() == warning, "one that stays the same is one event"
    now += FOLD_S
    told(9, 1)
    assert len(said) == 2
    told(3)  # another gateway
    assert len(said) == 3 and "3 idle ones" in said[2]
    now += SAID_S
    assert not crowded.troubles()
