"""The daemon's own log: a file that is rotated, or standard error; its level and size follow corral.toml."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from core.errors import Failed
from core.settings import DaemonTable

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
QUIET = ("aiosqlite", "asyncio")
"""They tell each statement and each slow callback at debug level: warnings alone are of use."""


class LogFile:
    """The one handler of the root logger. `path` None: standard error, which systemd or a person keeps."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._handler: logging.Handler | None = None

    @property
    def place(self) -> str:
        """For people."""
        return str(self._path) if self._path else "the daemon's standard error (under systemd: journalctl -u corral)"

    def begin(self, table: DaemonTable) -> None:
        """Log from now on. Raises `Failed` if the file cannot be written."""
        if self._path is None:
            self._handler = logging.StreamHandler()
        else:
            try:
                self._handler = logging.handlers.RotatingFileHandler(self._path, encoding="utf-8")
            except OSError as error:
                raise Failed(
                    f"{error.filename} cannot be written", error.strerror or str(error), "mend its mode"
                ) from error
        self._handler.setFormatter(logging.Formatter(FORMAT))
        logging.getLogger().addHandler(self._handler)
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.follow(table)

    def follow(self, table: DaemonTable) -> None:
        """Take level, size and number of old files from `table`, at the start and after a reload."""
        logging.getLogger().setLevel(table.log_level.upper())
        if isinstance(self._handler, logging.handlers.RotatingFileHandler):
            self._handler.maxBytes, self._handler.backupCount = table.log_bytes, table.log_files

    def end(self) -> None:
        """Take the handler off and close it."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()
            self._handler = None
