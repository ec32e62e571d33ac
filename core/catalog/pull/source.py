"""What a person names to pull: a repository of a hub, or one file by its address."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import msgspec

from core.catalog.files import PARTS, SPLIT
from core.errors import BadModel, Invalid
from core.formats import no_gguf

HUB = "https://huggingface.co"
HUB_HOSTS = ("huggingface.co", "hf.co", "www.huggingface.co")
EXAMPLE = "for example hf:ORG/REPO, hf:ORG/REPO:Q4_K_M, https://HOST/FILE.gguf, or a file or folder on this host"
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_PATH = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._ +()/-]{0,400}")


class Hub(msgspec.Struct, frozen=True, tag="hub"):
    """A repository, at `revision` (a branch, a tag or a commit; "": its main branch), and what of it: a quantisation,
    or the `path` of a file."""

    repo: str
    quant: str = ""
    path: str = ""
    revision: str = ""

    def __str__(self) -> str:
        wanted = f":{self.quant}" if self.quant else f"/{self.path}" if self.path else ""
        return f"hf:{self.repo}{wanted}" + (f"@{self.revision}" if self.revision else "")


class Web(msgspec.Struct, frozen=True, tag="web"):
    """One file by its address. What follows the `?` may be a signature, and is a secret: it is not in here."""

    url: str
    query: bool = False
    """It has one."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


Source = Hub | Web


def remote(text: str) -> bool:
    """Whether this names something to pull, and no file here."""
    return re.match(r"(hf:|[A-Za-z][A-Za-z0-9+.-]*://)", text) is not None and not text.startswith("file://")


def parse(text: str) -> tuple[Source, str]:
    """The source that `text` names, and what follows the `?` of its address, which no one may see. Raises `Invalid`,
    `BadModel`."""
    if len(text) > 4096 or not text.isprintable():
        raise Invalid("this is no source", "it is too long, or has characters that cannot be seen", EXAMPLE)
    if text.startswith("hf:"):
        return _hub(text.removeprefix("hf:").removeprefix("//")), ""
    parts = urlsplit(text)
    try:
        host, user = parts.hostname, parts.username or parts.password
        _ = parts.port
    except ValueError:
        raise Invalid("this is no address", "its port is no number", EXAMPLE) from None
    if parts.scheme not in ("https", "http") or not host:
        raise Invalid(f"{text.partition('?')[0][:100]!r} cannot be pulled", "it is no https address", EXAMPLE)
    if user:
        raise Invalid(
            "an address with a password in it is not taken",
            "what a command line or an address holds is seen by others",
            "use a hub's token (HF_TOKEN), or a server that asks for none",
        )
    if host in HUB_HOSTS and parts.scheme == "https":
        return _page(parts.path), ""
    url = f"{parts.scheme}://{parts.netloc}{parts.path}"
    source = Web(url, bool(parts.query))
    refuse_kind(source.name)
    split = SPLIT.fullmatch(source.name)
    if split is not None and not 1 <= int(split[3]) <= PARTS:
        raise BadModel(f"{source.name}: absurd count of parts", f"a split model has 1 to {PARTS}")
    return source, parts.query


def parts_of(source: Web) -> list[Web]:
    """The files of the model that `source` names: itself, or all parts of a split model."""
    folder, _, last = source.url.rpartition("/")
    split = SPLIT.fullmatch(last)
    if split is None:
        return [source]
    return [
        msgspec.structs.replace(source, url=f"{folder}/{split[1]}-{n:05d}-of-{split[3]}.gguf")
        for n in range(1, int(split[3]) + 1)
    ]


def refuse_kind(name: str) -> None:
    """Raises `BadModel` for a file that is no GGUF by its name, with the reason."""
    if not name:
        raise BadModel("the address names no file", "it ends in /", "give the address of a .gguf file")
    if refused := no_gguf(name, b""):
        raise BadModel(f"{name!r} is not taken", refused.why, refused.todo)
    if not name.endswith(".gguf") or name.startswith("."):
        raise BadModel(f"{name!r} is not taken", "its name does not end in .gguf, and nothing else is stored")


def _hub(text: str) -> Hub:
    """ORG/REPO[:QUANT][@REVISION], or ORG/REPO/FILE.gguf[@REVISION]."""
    rest, _, revision = text.partition("@")
    rest, _, quant = rest.partition(":")
    org, _, behind = rest.partition("/")
    name, _, path = behind.partition("/")
    return _checked(f"{org}/{name}", quant, path, revision, f"hf:{text}")


def _page(path: str) -> Hub:
    """A page of the hub, as a browser shows its address: /ORG/REPO, …/tree/REVISION, …/blob/REVISION/FILE."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) < 2:
        raise Invalid("this page of the hub is no model's", todo=EXAMPLE)
    repo, kind = "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""
    if kind and kind not in ("tree", "blob", "resolve"):
        raise Invalid("this page of the hub is no model's", f"/{kind}", EXAMPLE)
    if kind in ("blob", "resolve") and len(parts) > 4:
        refuse_kind(parts[-1])
        return _checked(repo, "", "/".join(parts[4:]), parts[3], path)
    return _checked(repo, "", "", parts[3] if len(parts) == 4 else "", path)


def _checked(repo: str, quant: str, path: str, revision: str, said: str) -> Hub:
    if (
        not _REPO.fullmatch(repo)
        or (quant and not _QUANT.fullmatch(quant))
        or (path and not _PATH.fullmatch(path))
        or (revision and not _REVISION.fullmatch(revision))
        or ".." in f"{repo}/{path}/{revision}"
        or "//" in path
    ):
        raise Invalid(f"{said[:120]!r} names no repository", "it is written hf:ORG/REPO[:QUANT][@REVISION]", EXAMPLE)
    if path:
        refuse_kind(path.rpartition("/")[2])
    revision = "" if revision == "main" else revision
    if quant.endswith(".gguf"):
        return Hub(repo, "", quant, revision)
    return Hub(repo, quant, path, revision)
