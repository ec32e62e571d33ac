"""The gateway's clock: even, whatever is done to the host's; and what a day and a month are."""

from __future__ import annotations

from datetime import UTC, datetime

from core.gateway.clock import STEADY_S, Clock

HOUR, DAY = 3600.0, 86400.0


class Host:
    """Seconds since its boot, and a wall clock that somebody may set."""

    def __init__(self, when: str = "2026-11-30 23:00") -> None:
        self.now, self.set = 500.0, datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp() - 500.0

    def boot(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.set


def test_day_and_month_turn_and_say_when() -> None:
    host = Host()
    clock = Clock(host.boot, host.wall)
    assert (clock.day, clock.month) == ("2026-11-30", "2026-11")
    assert clock.day_ends == clock.month_ends == host.now + HOUR
    host.now += HOUR
    clock.now()
    assert (clock.day, clock.month) == ("2026-12-01", "2026-12")
    assert (clock.day_ends, clock.month_ends) == (host.now + DAY, host.now + 31 * DAY)


def test_a_clock_that_is_set_changes_nothing_and_one_that_is_set_back_has_not_been_set() -> None:
    host = Host()
    clock = Clock(host.boot, host.wall)
    for by in (3 * DAY, -3 * DAY, 40 * DAY):
        host.set += by
        for _ in range(23):
            clock.look()
            clock.now()
            assert clock.day == "2026-11-30"
        host.set -= by
        clock.look()
    host.now += STEADY_S
    clock.look()
    clock.now()
    assert clock.day == "2026-12-01"


def test_a_difference_that_has_lasted_a_day_is_taken_over() -> None:
    host = Host()
    clock = Clock(host.boot, host.wall)
    host.set += 10 * DAY
    clock.look()
    host.now += STEADY_S - 1
    clock.look()
    clock.now()
    assert clock.day == "2026-12-01"
    host.now += 1
    clock.look()
    assert clock.day == "2026-12-11"


def test_a_gateway_that_starts_goes_on_with_the_clock_of_the_one_before() -> None:
    host = Host()
    first = Clock(host.boot, host.wall)
    host.set -= 5 * DAY
    second = Clock(host.boot, host.wall)
    assert second.day == "2026-11-25"
    second.go_on(first.offset, first.unix(host.now), True)
    assert second.day == "2026-11-30"


def test_after_a_reboot_the_host_is_believed_but_never_before_what_was_counted() -> None:
    host = Host()
    counted = host.wall()
    for by, day in ((-5 * DAY, "2026-11-30"), (5 * DAY, "2026-12-05")):
        again = Host()
        again.now, again.set = 20.0, counted + by - 20.0
        clock = Clock(again.boot, again.wall)
        clock.go_on(123.0, counted, False)
        assert clock.day == day
