"""The model store: import, content-addressed objects, and sizing."""

from core.catalog.sample import sample_path
from core.catalog.service import Catalog

__all__ = ["Catalog", "sample_path"]
