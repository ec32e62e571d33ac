"""One module per screen, with its .tcss beside it."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the style sheets lie."""
