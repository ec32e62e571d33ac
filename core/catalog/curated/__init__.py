"""The curated list: one TOML file a family in this folder, and the user's own entries, which override it by name.

docs/catalogue.md says how an entry is made. Nothing here asks a network, and nothing is remembered but these files.
"""

from core.catalog.curated.reading import advice, load, read, shape_for, templates

__all__ = ["advice", "load", "read", "shape_for", "templates"]
