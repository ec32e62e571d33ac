"""When a chat goes, as `corral chats ls` says it."""

import time

import pytest

from core.nouns import Chat, ChatOptions
from tui.verbs.chat import _goes


@pytest.mark.parametrize(
    "left, fields, words",
    [
        (None, {}, "-"), (-5, {}, "within 1h"), (3, {}, "within 1h"), (2.5 * 86400, {}, "in 2d"),
        (3, {"held": True}, "held"), (3, {"private": True}, "private"),
    ],
)  # fmt: skip
def test_a_chat_that_is_over_goes_at_the_next_look_and_not_now(
    left: float | None, fields: dict[str, bool], words: str
) -> None:
    chat = Chat(
        id="c", title="", deployment="d", options=ChatOptions(), owner="ann", created_at=0.0, updated_at=0.0,
        goes_at=None if left is None else time.time() + left, **fields,
    )  # fmt: skip
    assert _goes(chat) == words
