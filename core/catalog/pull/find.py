"""From what a person named to the files that would be pulled, checked against memory, disk and rights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from core.catalog.identity import label
from core.catalog.pull import choice, hub
from core.catalog.pull.peek import Peek, peek
from core.catalog.pull.shelf import Shelf
from core.catalog.pull.source import HUB, Hub, Source, Web, parts_of
from core.catalog.pull.web import Web as Net
from core.catalog.pull.web import origin
from core.catalog.shape import shape_of
from core.errors import CorralError, Invalid, NeedsToken
from core.nouns import Actor, ModelShape, PullFile, PullPlan

TOKEN_CHARACTERS = 4096


class Ask(msgspec.Struct, frozen=True):
    """What a person asks for. `secret` is what may stand in no record: the hub's token, or what follows the `?` of an
    address."""

    source: Source
    actor: Actor
    secret: str = ""
    endpoint: str = ""
    """Of the hub, as the caller's environment has it."""
    ctx: int = 0
    sha256: str = ""
    """Of the one file of an address, where whoever publishes it says so."""


class Found(msgspec.Struct, frozen=True):
    """What there is, and the address of each file."""

    plan: PullPlan
    urls: dict[str, str]
    others: str
    """What a repository without a GGUF has in its place."""
    gated: bool


class Place(msgspec.Struct, frozen=True):
    """Which hub: the caller's, else the one of the settings. `trusted`: the settings name it."""

    endpoint: str
    trusted: bool


def place(asked: str, setting: str) -> Place:
    """Raises `Invalid` for an address that is none, or has a password in it."""
    if asked and asked.rstrip("/") != setting.rstrip("/"):
        if not asked.startswith(("https://", "http://")) or "@" in asked or "?" in asked or not asked.isprintable():
            raise Invalid("the hub's address cannot be used", "HF_ENDPOINT is no plain https address", f"e.g. {HUB}")
        return Place(asked.rstrip("/"), False)
    return Place((setting or HUB).rstrip("/"), bool(setting))


def check_secret(secret: str) -> str:
    """Raises `Invalid`, without saying it."""
    if len(secret) > TOKEN_CHARACTERS or not secret.isascii() or any(not "!" <= each <= "~" for each in secret):
        raise Invalid("this is no token", "it has characters that none has", "look at HF_TOKEN, or log in anew")
    return secret


class Finder:
    """`plan` tells of a shape and a context whether a replica fits now, `left` the memory that is left, `room` what a
    new model may take where it lands (bytes), and why it could not. `shelf` gives the store as a pull sees it."""

    def __init__(
        self, plan: choice.Planner, left: Callable[[], Awaitable[int]], room: Callable[[], Awaitable[tuple[int, str]]],
        shelf: Callable[[Actor, bool], Shelf], environ: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._plan, self._left, self._room, self._shelf, self._environ = plan, left, room, shelf, environ

    def net(self, ask: Ask, where: Place, *, private: bool) -> Net:
        """The way to the network of one pull."""
        hub = isinstance(ask.source, Hub)
        trusted = [urlsplit(where.endpoint).hostname or ""] if hub and where.trusted else []
        return Net(
            private=private, trusted=trusted, token=ask.secret if hub else "", environ=self._environ,
            origin=origin(where.endpoint) if hub else "",
        )  # fmt: skip

    async def find(self, ask: Ask, where: Place, net: Net) -> Found:
        """What the source has. Raises what the network and the hub say."""
        if isinstance(ask.source, Hub):
            return await self._hub(ask, ask.source, where, net)
        return await self._web(ask, ask.source, where, net)

    def shelf(self, ask: Ask, where: Place, *, gated: bool) -> Shelf:
        """What is in the store already of what a source has; of what is `gated` that is to be seen otherwise."""
        public = isinstance(ask.source, Hub) and not gated and (where.trusted or where.endpoint == HUB)
        return self._shelf(ask.actor, public)

    async def _hub(self, ask: Ask, source: Hub, where: Place, net: Net) -> Found:
        listing = await hub.ask(source, where.endpoint, ask.secret, net, self._environ)
        groups, notes = choice.group(listing.models)
        asked = choice.wanted(groups, source.quant, source.path, f"hf:{source.repo}")
        shape, note = await self._shape(groups, listing, net)
        notes += [note] if note else []
        shelf = self.shelf(ask, where, gated=listing.gated or listing.private)
        groups = [choice.Group(each.quantization, await shelf.marked(each.files)) for each in groups]
        left, room = await self._left(), await self._room()
        choices, why = await choice.choose(
            groups, asked, shape=shape, ctx=ask.ctx, plan=self._plan, room=room, left_bytes=left
        )
        if not choices:
            why, notes = "it has no GGUF model", [*notes, listing.others()]
        found = PullPlan(
            source=str(source), revision=listing.revision, licence=listing.licence, gated=listing.gated,
            architecture=shape.arch if shape else listing.architecture, params=listing.params,
            ctx=await self._ctx(shape, ask.ctx), left_bytes=left, disk_bytes=room[0], choices=choices, why=why,
            notes=tuple(notes), projectors=choice.projectors(listing.models),
        )  # fmt: skip
        urls = {each.name: each.url for each in listing.files if each.name.endswith(".gguf")}
        return Found(found, urls, listing.others(), listing.gated or listing.private)

    async def _shape(
        self, groups: Sequence[choice.Group], listing: hub.Listing, net: Net
    ) -> tuple[ModelShape | None, str]:  # fmt: skip
        """Of the smallest one, whose header is that of all; and why not, as a sentence."""
        if not groups:
            return None, ""
        first = groups[-1].files[0]
        try:
            seen = await peek(net, listing.url(first.name), first.name)
        except NeedsToken:
            return None, "its files are gated, so that their memory is estimated from their sizes"
        except CorralError as error:
            return None, f"no header could be read ({error.what}), so that memory is estimated from the sizes"
        return _shape_of(seen)

    async def _ctx(self, shape: ModelShape | None, ctx: int) -> int:
        return (await self._plan(shape, ctx)).ctx_per_slot if shape is not None else 0

    async def _web(self, ask: Ask, source: Web, where: Place, net: Net) -> Found:
        """One file, or all parts of a split model."""
        parts = parts_of(source)
        query = f"?{ask.secret}" if source.query else ""
        told: list[PullFile] = []
        shape, note = None, ""
        for part in parts:
            seen = await peek(net, part.url + query, part.name, header=not told)
            if not told:
                shape = shape_of([seen.header]) if seen.header is not None else None  # what is no model ends here
                note = "" if shape else "its header could not be read yet: its memory is estimated from its size"
            told.append(PullFile(name=part.name, bytes=seen.bytes, sha256=ask.sha256 if len(parts) == 1 else ""))
        base = parts[0].name.removesuffix(".gguf")
        files = await self.shelf(ask, where, gated=True).marked(told)
        only = choice.Group((shape.quantization if shape else "") or label(base), files)
        left, room = await self._left(), await self._room()
        choices, why = await choice.choose(
            [only], only, shape=shape, ctx=ask.ctx, plan=self._plan, room=room, left_bytes=left
        )
        unsure = [] if ask.sha256 else ["nobody vouches for this file: no hash is known before it is here (--sha256)"]
        found = PullPlan(
            source=str(source), revision="", licence="", gated=False, architecture=shape.arch if shape else "",
            params=shape.n_params if shape else 0, ctx=await self._ctx(shape, ask.ctx), left_bytes=left,
            disk_bytes=room[0], choices=choices, why=why, notes=tuple(filter(None, [note, *unsure])),
        )  # fmt: skip
        return Found(found, {part.name: part.url for part in parts}, "", source.query)


def _shape_of(seen: Peek) -> tuple[ModelShape | None, str]:
    if seen.header is None:
        return None, "no header could be read yet, so that memory is estimated from the sizes"
    try:
        return shape_of([seen.header]), ""
    except CorralError as error:
        return None, f"memory is estimated from the sizes: {error.what}"
