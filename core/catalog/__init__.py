"""The model store: import, content-addressed objects, and sizing."""

from core.catalog.service import Catalog, sample_path

__all__ = ["Catalog", "sample_path"]
