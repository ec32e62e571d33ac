"""The model store: import, content-addressed objects, and sizing."""

from core.catalog.sample import sample_path
from core.catalog.service import Catalog, Serving, unusable
from core.catalog.uses import Use

__all__ = ["Catalog", "Serving", "Use", "sample_path", "unusable"]
