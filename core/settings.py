"""corral.toml: its tables, their defaults and their bounds."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from core.errors import Invalid
from core.listen import EXAMPLE, Listen, listens

TOML_LIMIT = 1 << 20


# A key that ends in _bytes takes a size as text too ("4G"): core.toml.
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables: an unknown key is an error."""


class DaemonTable(_Table, frozen=True, kw_only=True):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_bytes: Annotated[int, msgspec.Meta(ge=65536)] = 4 << 20
    """Rotate the daemon's log at this size; `log_files` old ones are kept."""
    log_files: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    group: str = "corral"
    """System mode: whose members may do everything."""
    gateway_user: str = "corral-gw"
    engine_user: str = "corral-run"


class CapacityTable(_Table, frozen=True, kw_only=True):
    reserve_bytes: Bytes = 0
    """Memory kept for the host; 0 = a tenth of it, at least 512 MiB, at most 8 GiB."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    """Cores that replicas share; 0 = usable cores less one."""


class ReplicasTable(_Table, frozen=True, kw_only=True):
    start_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 300
    drain_timeout_s: Seconds = 30
    stop_timeout_s: Seconds = 10
    """From SIGTERM to SIGKILL."""
    backoff_s: tuple[Seconds, ...] = (1, 2, 5, 10, 30, 60)
    """Pauses before the restarts of a replica that dies; after the last one it is failed."""
    steady_s: Seconds = 300
    """A replica that was ready for so long begins anew with the first pause."""
    log_bytes: Annotated[int, msgspec.Meta(ge=65536)] = 4 << 20
    log_files: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3


Program = Annotated[str, msgspec.Meta(pattern="^(/|~|$)")]
"""An absolute path; ~ is the home folder, and empty none."""
File = Program
PLAIN_HTTP = "I accept that keys, prompts and answers can be read on the network"
"""What `gateway.insecure_plain_http` says, and nothing shorter."""


class GatewayTable(_Table, frozen=True, kw_only=True):
    listen: str | tuple[str, ...] = "127.0.0.1:8620"
    """Where programs with an API key are served, each the next free port if that one is taken at first. Other addresses
    than loopback speak TLS. Empty: nowhere but on the Unix socket."""
    certificate: File = ""
    """File of the certificate (PEM, with those between it and the CA); empty = that of `corral gateway certificate`."""
    certificate_key: File = ""
    """File of its private key, which nobody else may read; empty = the same one as the certificate's."""
    insecure_plain_http: Literal["", "I accept that keys, prompts and answers can be read on the network"] = ""
    """Said so, addresses beyond loopback speak plain HTTP, but for those that are written with https://."""
    connections_per_address: Annotated[int, msgspec.Meta(ge=1, le=1000000)] = 512
    """Connections that one address (of IPv6 a /64, on the Unix socket a user) may have; more are closed at once."""
    connections_per_key: Annotated[int, msgspec.Meta(ge=1, le=1000000)] = 512
    """Connections that one API key may use at a time."""
    queue: Annotated[int, msgspec.Meta(ge=0, le=100000)] = 64
    """Requests that may wait for a slot of a deployment."""
    queue_timeout_s: Seconds = 60
    first_byte_timeout_s: Seconds = 600
    idle_timeout_s: Seconds = 120
    request_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=1e9)] = 30
    """From a connection on, until it has asked something; and, with the idle time-out, from the first byte of a request
    to its last."""
    body_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 16 << 20
    bodies_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 256 << 20
    """Of all bodies that are on their way, together; two of the largest at least. One caller has at most as much as is
    left: alone, half."""
    when_spool_full: Literal["refuse", "serve-uncounted"] = "refuse"
    """What becomes of requests while the usage that waits for the daemon fills its 32 MiB."""
    alone_hours: Annotated[float, msgspec.Meta(ge=0.01, le=100000)] = 24
    """So long the gateway decides by what the daemon told it last, while there is none; then as `when_alone` says."""
    when_alone: Literal["refuse", "serve"] = "refuse"

    def listens(self) -> tuple[Listen, ...]:
        """The addresses of `listen`. Raises ValueError with what is wrong."""
        texts = (self.listen,) if isinstance(self.listen, str) else self.listen
        return listens([text for text in texts if text], plain=bool(self.insecure_plain_http))


class EnginesTable(_Table, frozen=True, kw_only=True):
    llama_server: Program = ""
    """Path of llama-server; empty = looked up on PATH."""
    llama_cpp_python: Program = ""
    """Path of a python that has llama-cpp-python[server]; empty = Corral's own."""


class SamplesTable(_Table, frozen=True, kw_only=True):
    every_s: Annotated[float, msgspec.Meta(ge=0.2, le=3600)] = 1.0
    keep: Annotated[int, msgspec.Meta(ge=60, le=86400)] = 900
    pss_every_s: Annotated[float, msgspec.Meta(ge=5, le=86400)] = 30.0


PASSPHRASE = "passphrase"  # noqa: S105 - the word for it in corral.toml


class ChatsTable(_Table, frozen=True, kw_only=True):
    keep_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0
    """Days after its last turn that a chat is kept; then it is deleted for good. 0 = for ever. It is the rule where
    none of `corral chats retention` speaks."""
    master_key: str = ""
    """What the keys of the chats are wrapped with: a file ("$CREDENTIALS_DIRECTORY/chats.key"), "passphrase" for one
    that is asked for at `corral chats unlock`; empty = a file that Corral makes."""
    next_master_key: str = ""
    """File of the key that `corral chats rekey` goes over to, where `master_key` is one."""


class SinksTable(_Table, frozen=True, kw_only=True):
    file: str = ""
    """File of JSON lines that records are appended to."""
    file_append_only: bool = False
    """Hold even the file's owner to appending (`chattr +a`), where the file system and our rights can; else it is said.
    Such a file is not renamed either."""
    journald: bool = False
    syslog: str = ""
    """host:port of a collector that speaks syslog over TLS (RFC 5425)."""
    syslog_ca: str = ""
    """File of the certificates that the collector's is checked with; empty = the host's own."""
    syslog_cert: str = ""
    syslog_key: str = ""
    """Our certificate and its key, where the collector asks for one."""
    spool_records: Annotated[int, msgspec.Meta(ge=1, le=1000000000)] = 100000
    """A sink that lacks so many records is full: it is said, and nothing is dropped."""


class AuditTable(_Table, frozen=True, kw_only=True):
    signing_key: str = ""
    """File of the private key, e.g. "$CREDENTIALS_DIRECTORY/audit.key", or "agent:/path/to/agent.sock": an agent that
    has it (`#` and a fingerprint or a comment name one of several); empty = audit.key, made by Corral."""
    next_key: str = ""
    """The same of the key that `corral audit key rotate` goes over to, where `signing_key` is set."""
    checkpoint_records: Annotated[int, msgspec.Meta(ge=1, le=1000000)] = 1000
    checkpoint_every_s: Annotated[float, msgspec.Meta(ge=1, le=1e9)] = 3600
    archive_after_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0
    """Records that are older go into a signed archive file, a week's at least at a time. 0 = none does by itself."""
    archive_folder: str = ""
    """Where archive files go; empty = audit-archive beside the database."""
    sinks: SinksTable = SinksTable()


Price = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class PriceTable(_Table, frozen=True, kw_only=True):
    """What the models of one pattern cost."""

    per_million_in: Price = 0
    per_million_cached: Price = -1
    """Of those read: what came from the engine's cache. Not set: as `per_million_in`."""
    per_million_out: Price = 0
    per_core_hour: Price = 0


class UsageTable(_Table, frozen=True, kw_only=True):
    keep_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 90
    """Days that the line of each request is kept; its sums stay. 0 = for ever."""
    keep_rollup_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0
    """Days that the sums by hour and day are kept, at least as long as the lines. 0 = for ever."""
    currency: str = ""
    prices: dict[str, PriceTable] = {}
    """By model or pattern (`phi-*`)."""


class PullTable(_Table, frozen=True, kw_only=True):
    at_once: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    """Pulls that run at a time; others wait for their turn."""
    rate_bytes: Bytes = 0
    """Bytes a second of all pulls together; 0 = no cap. A pull may have a lower one of its own (`--limit`)."""
    hub: str = ""
    """Address of the hub, or of its mirror, for callers who name none (HF_ENDPOINT); it may be on a private network.
    Empty = https://huggingface.co."""


class Settings(_Table, frozen=True, kw_only=True):
    """All of corral.toml; every key has a default, so an absent file is a valid one."""

    daemon: DaemonTable = DaemonTable()
    capacity: CapacityTable = CapacityTable()
    replicas: ReplicasTable = ReplicasTable()
    gateway: GatewayTable = GatewayTable()
    engines: EnginesTable = EnginesTable()
    samples: SamplesTable = SamplesTable()
    chats: ChatsTable = ChatsTable()
    audit: AuditTable = AuditTable()
    usage: UsageTable = UsageTable()
    pull: PullTable = PullTable()


def load(path: Path) -> Settings:
    """Read and check corral.toml; the defaults if there is none. Raises `Invalid` with line and reason."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # never waiting for a pipe's other end
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Invalid(f"{path} is no file", "it is a folder, a pipe or a device", "move it away")
            _refuse_foreign(path, os.fstat(fd))
            text = file.read(TOML_LIMIT + 1).decode("utf-8")
    except FileNotFoundError:
        return Settings()
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} cannot be read", f"byte {error.start} is no UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise Invalid(f"{path} cannot be read", error.strerror or str(error), "mend the file or its mode") from error
    if len(text) > TOML_LIMIT:
        raise Invalid(f"{path} is too large", f"more than {TOML_LIMIT >> 10} KiB", "is it the right file?")
    return parse(text, str(path))


def _refuse_foreign(path: Path, found: os.stat_result) -> None:
    """It names programs that are started: who can write it acts as this user. Raises `Invalid`."""
    others = stat.S_IWOTH | (stat.S_IWGRP if os.getuid() == 0 else 0)
    if found.st_uid not in (0, os.getuid()):
        raise Invalid(f"{path} belongs to uid {found.st_uid}", "it names programs that are started",
                      f"look at it, then chown {os.getuid()} {path}")  # fmt: skip
    if found.st_mode & others:
        raise Invalid(
            f"{path} may be written by others (mode {stat.S_IMODE(found.st_mode):04o})",
            "it names programs that are started", f"look at it, then chmod go-w {path}",
        )  # fmt: skip


def parse(text: str, name: str = "corral.toml") -> Settings:
    """Check the text of a corral.toml. Raises `Invalid`: `name:line: reason`."""
    from core.toml import read, refusal  # 6 ms, and no terminal reads the file

    found = read(text, name, Settings)
    try:
        found.gateway.listens()
    except ValueError as error:
        why, todo = f"it may be {EXAMPLE}", ""
        if "plain HTTP" in str(error):
            why = "whoever reads along has the keys"
            todo = f'write https:// (`corral gateway certificate`), or set insecure_plain_http = "{PLAIN_HTTP}"'
        raise refusal(text, name, ["gateway", "listen"], f"gateway.listen: {error}", why, todo) from None
    if found.pull.hub and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?", found.pull.hub):
        raise refusal(
            text, name, ["pull", "hub"], "pull.hub is no address of a hub", "it is no plain https address",
            'write it as hub = "https://hub.example.com"',
        )  # fmt: skip
    if found.chats.next_master_key == PASSPHRASE:
        raise refusal(
            text, name, ["chats", "next_master_key"], "chats.next_master_key is a file, and no passphrase",
            "a passphrase comes after a file by another name",
            f'write master_key = "{PASSPHRASE}", then `corral reload` and `corral chats rekey`',
        )  # fmt: skip
    return found
