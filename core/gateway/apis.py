"""The routes that the gateway relays: what a key names each by, what a request to it may cost, whose shape it speaks.

Which of them a deployment has is said by its engine (core.engines, `Engine.serves`) and comes with its route.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Shape = Literal["openai", "responses", "messages"]
"""How errors, streams and usage look: OpenAI's, those of its Responses, those of Anthropic's Messages."""

COUNTED_BYTES = 1 << 20
"""Of a body that costs no token: an engine works on it all the same, outside its slots."""


class Api(msgspec.Struct, frozen=True):
    """One route. `path` is what engines and lines of usage have; `scope` is its name in a key's `endpoints`."""

    path: str
    scope: str
    shape: Shape = "openai"
    answers: bool = False
    """An answer is made, token by token; it may be a stream."""
    costs: bool = True
    """Else it costs a request and no token."""
    options: bool = False
    """Takes `stream_options` and, where the engine has it, `return_progress`."""
    prompts: bool = False
    """Takes a list of prompts, each of which is answered."""
    logprobs: int = 20
    """What it takes at most of them."""


CHAT = Api("/v1/chat/completions", "chat/completions", answers=True, options=True)
COMPLETIONS = Api("/v1/completions", "completions", answers=True, options=True, prompts=True, logprobs=5)
EMBEDDINGS = Api("/v1/embeddings", "embeddings")
RESPONSES = Api("/v1/responses", "responses", "responses", answers=True)
RESPONSES_COUNT = Api("/v1/responses/input_tokens", "responses", costs=False)
MESSAGES = Api("/v1/messages", "messages", "messages", answers=True)
MESSAGES_COUNT = Api("/v1/messages/count_tokens", "messages", "messages", costs=False)
RERANK = Api("/v1/rerank", "rerank")
TOKENIZE = Api("/tokenize", "tokenize", costs=False)
DETOKENIZE = Api("/detokenize", "detokenize", costs=False)

APIS = (
    CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, RESPONSES_COUNT, MESSAGES, MESSAGES_COUNT, RERANK, TOKENIZE, DETOKENIZE,
)  # fmt: skip
ROUTES = {api.path.encode(): api for api in APIS} | {b"/rerank": RERANK}
"""By what a client asks for."""
FIRST = (CHAT.path, COMPLETIONS.path, EMBEDDINGS.path)
"""What the routes of a daemon of one release back, which says nothing, have."""


def shape_of(target: bytes) -> Shape:
    """How whoever asked for `target` expects to be refused."""
    api = ROUTES.get(target.partition(b"?")[0])
    return api.shape if api is not None else "openai"
