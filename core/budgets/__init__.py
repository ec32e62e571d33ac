"""Limits and reservations: is there room? At this stage the memory and the cores of the host."""

from core.budgets.admission import Room, default_reserve, room, threads_for

__all__ = ["Room", "default_reserve", "room", "threads_for"]
