"""Who may do what, and the one gate that every action passes."""

from core.access.gate import Effect, Gate

__all__ = ["Effect", "Gate"]
