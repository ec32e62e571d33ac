"""Every key in one place: what it does, where, and the words that help and palette show."""

from __future__ import annotations

from typing import NamedTuple

SIGNS = {"question_mark": "?", "colon": ":", "slash": "/", "exclamation_mark": "!"}
"""Names of keys to what stands on them."""


class Key(NamedTuple):
    """`action` is a Textual action of the App (or of the screen that `where` names)."""

    keys: str
    action: str
    words: str
    where: str = "everywhere"
    priority: bool = False
    """It comes before what the widget with the focus does with the key."""

    short: str = ""
    """Fewer words, for the foot of the screen."""

    needs: str = ""
    """The permission without which it does nothing."""

    @property
    def shown(self) -> str:
        """The keys as a person reads them."""
        return ", ".join(SIGNS.get(key, key) for key in self.keys.split(","))


SCREENS = {"1": "overview", "2": "deployments", "3": "models", "5": "chat", "8": "access", "9": "audit"}
"""Digit to mode; digits of later screens stay free."""

EVERYWHERE = (
    *(Key(digit, f"room('{name}')", name.capitalize()) for digit, name in SCREENS.items()),
    Key("question_mark", "help", "Help for this screen"),
    Key("colon", "palette", "Command palette"),
    Key("exclamation_mark", "whole", "Whole text of what is cut off"),
    Key("f5", "reload", "Read anew, start an ended daemon (Chat: alt+5)"),
)
"""Not while a text field has the focus (F5 excepted)."""

FROM_ANYWHERE = (
    *(
        Key(f"alt+{digit}" + ("" if digit == "5" else f",f{digit}"), f"room('{name}')", name.capitalize())
        for digit, name in SCREENS.items()
    ),
    Key("ctrl+p", "palette", "Command palette"),
    Key("ctrl+q", "quit", "Quit; models run on"),
)
"""Also from within a text field. F5 refreshes on every screen, so Chat, screen 5, has alt+5 and no F key."""

PALETTE = (
    Key("", "settings", "reload: read corral.toml again", needs="daemon.reload"),
    Key("", "shutdown(False)", "shut down the daemon; models run on", needs="daemon.shutdown"),
    Key("", "shutdown(True)", "shut down the daemon and stop all models", needs="daemon.shutdown"),
)
"""What is done too seldom for a key: only the palette has it."""

TABLE = (
    Key("j,down", "down", "Next row", "tables"),
    Key("k,up", "up", "Row before", "tables"),
    Key("g,home", "first", "First row", "tables"),
    Key("G,end", "last", "Last row", "tables"),
    Key("pagedown", "page(1)", "Page on", "tables"),
    Key("pageup", "page(-1)", "Page back", "tables"),
    Key("enter", "open", "Open", "tables"),
)

ASK = (
    Key("ctrl+n", "new", "New chat; what is written stays", "question field"),
    Key("ctrl+o", "options", "Parameters of this chat", "question field"),
    Key("ctrl+f", "full", "When the context is full: ask, or forget", "question field"),
)
"""What the field of a chat takes from the screen; the rest is what `WRITE` tells."""

WRITE = (
    Key("enter", "send", "Send", "question field"),
    Key("ctrl+j,alt+enter", "new_line", "New line", "question field"),
    Key("up,down", "recall", "Earlier questions, at the first and last line", "question field"),
)

ROOMS: dict[str, tuple[Key, ...]] = {
    "overview": (
        Key("e", "explain", "Explain", "overview"),
        Key("slash", "filter", "Filter", "overview"),
        Key("y", "copy", "Copy", "overview"),
    ),
    "deployments": (
        Key("d", "deploy", "Deploy", "deployments", needs="deployments.create"),
        Key("s", "stop", "Stop / start", "deployments", short="Stop"),
        Key("r", "restart", "Restart", "deployments", needs="deployments.restart"),
        Key("c", "scale", "Scale", "deployments", needs="deployments.scale"),
        Key("x", "remove", "Remove", "deployments", needs="deployments.rm"),
        Key("l", "logs", "Logs", "deployments", needs="deployments.logs"),
        Key("e", "explain", "Explain", "deployments"),
        Key("slash", "filter", "Filter", "deployments"),
        Key("y", "copy", "Copy", "deployments"),
    ),
    "models": (
        Key("i", "import_model", "Import", "models", needs="models.import"),
        Key("p", "pull", "Pull from a hub, an address or a folder", "models", short="Pull", needs="models.import"),
        Key("m", "sample", "Import sample", "models", short="Sample", needs="models.import"),
        Key("r", "recommend", "Recommend one for a job", "models", short="Recommend", needs="models.read"),
        Key("d", "deploy", "Deploy", "models", needs="deployments.create"),
        Key("a", "alias", "Alias: what live and others mean", "models", short="Alias", needs="models.alias"),
        Key("e", "explain", "All that is known of it", "models", short="Details", needs="models.read"),
        Key("w", "fit", "What it would take: memory by device, speed", "models", short="Weigh", needs="models.read"),
        Key("b", "curve", "Measured speed, as a chart; measure it", "models", short="Bench", needs="models.read"),
        Key("c", "diff", "Compare two versions", "models", short="Compare", needs="models.read"),
        Key("h", "history", "History of its versions", "models", short="History", needs="models.read"),
        Key("n", "note", "Label and notes", "models", short="Note", needs="models.alias"),
        Key("o", "move", "Move to another tier", "models", short="Move", needs="models.move"),
        Key("v", "verify", "Verify stored files, or end that", "models", short="Verify", needs="models.verify"),
        Key("f", "gc", "Free what nothing needs", "models", short="Free", needs="models.gc"),
        Key("t", "jobs", "What is under way", "models", short="Under way", needs="models.read"),
        Key("x", "remove", "Remove", "models", needs="models.rm"),
        Key("slash", "filter", "Filter", "models"),
        Key("y", "copy", "Copy", "models"),
    ),
    "jobs": (
        Key("p", "pause", "Pause, or go on", "under way", short="Pause", needs="models.import"),
        Key("x", "cancel", "Cancel", "under way"),
        Key("slash", "filter", "Filter", "under way"),
        Key("y", "copy", "Copy", "under way"),
        Key("d", "keep", "Do not deploy it when it is here", "under way", short="Do not deploy"),
    ),
    "curve": (
        Key("m", "measure", "Measure it anew", "measured speed", short="Measure", needs="models.bench"),
        Key("x", "cancel", "Cancel the measurement", "measured speed", short="Cancel", needs="models.bench"),
        Key("y", "copy", "Copy", "measured speed"),
    ),
    "recommend": (
        Key("p", "take", "Pull and deploy it", "recommendation", needs="deployments.create"),
        Key("e", "reasons", "Why, in whole", "recommendation", short="Why"),
        Key("y", "copy", "Copy the commands", "recommendation", short="Copy"),
    ),
    "chat": (
        Key("n", "new", "New chat", "chat", short="New", needs="chats.own"),
        Key("i", "write", "Write a question", "chat", short="Write", needs="chats.own"),
        Key("v", "private", "New private chat: in memory alone", "chat", short="Private", needs="chats.own"),
        Key("s", "stop_turn", "Stop answer", "chat", short="Stop", needs="chats.own"),
        Key("r", "regenerate", "Regenerate the last answer", "chat", short="Again", needs="chats.own"),
        Key("e", "edit", "Edit and resend the last question", "chat", short="Edit", needs="chats.own"),
        Key("o", "go_on", "Go on with a cut answer", "chat", short="Go on", needs="chats.own"),
        Key("f", "full", "When the context is full: ask, or forget", "chat", short="Full", needs="chats.own"),
        Key("p", "options", "Parameters of this chat", "chat", short="Params", needs="chats.own"),
        Key("slash", "filter", "Search chats", "chat", short="Search", needs="chats.own"),
        Key("t", "rename", "Title of the chat", "chat", short="Title", needs="chats.own"),
        Key("w", "export", "Write to a file", "chat", short="Export", needs="chats.own"),
        Key("y", "copy", "Copy answer", "chat", short="Copy"),
        Key("x", "remove", "Delete the chat", "chat", short="Delete", needs="chats.own"),
        Key("u", "unlock", "Unlock the chats", "chat", short="Unlock", needs="chats.keys"),
        Key("h", "others", "Read another's chats, with a reason", "chat", short="Others", needs="chats.read-others"),
        Key("z", "hold", "Legal hold: set or lift", "chat", short="Hold", needs="chats.hold"),
        Key("c", "keep", "How long chats are kept", "chat", short="Keep", needs="chats.retention"),
    ),
    "access": (
        Key("n", "new", "Grant or deny", "access", short="Grant", needs="access.grant"),
        Key("a", "key", "Make an API key", "access", short="API key", needs="keys.own"),
        Key(
            "s",
            "account",
            "Service account: make; on one, disable or enable",
            "access",
            short="Account",
            needs="accounts.own",
        ),
        Key("l", "limit", "Set limits", "access", short="Limit", needs="limits.set"),
        Key("x", "remove", "Revoke the grant or key, remove the limit", "access", short="Revoke", needs="access.grant"),
        Key("e", "explain", "Explain a decision", "access", short="Explain", needs="access.read"),
        Key("h", "ended", "Grants that have ended: show or hide", "access", short="Ended"),
        Key("t", "team", "Define a team", "access", short="Team", needs="access.teams"),
        Key("o", "role", "Define a role", "access", short="Role", needs="access.roles"),
        Key("c", "keep", "How long chats are kept", "access", short="Keep", needs="chats.retention"),
        Key("z", "hold", "Legal hold of chats: set or lift", "access", short="Hold", needs="chats.hold"),
        Key("f", "forget", "Forget a user: all that he said", "access", short="Forget", needs="chats.forget"),
        Key("slash", "filter", "Filter", "access"),
        Key("y", "copy", "Copy", "access"),
    ),
    "audit": (
        Key("slash", "filter", "Filter the whole trail", "audit", short="Filter", needs="audit.read"),
        Key("e", "explain", "Whole record, before and after", "audit", short="Record"),
        Key("f", "follow", "Follow the newest", "audit", short="Follow", needs="audit.read"),
        Key("v", "verify", "Verify chain, or end that", "audit", short="Verify", needs="audit.verify"),
        Key("w", "export", "Write the trail to a signed file", "audit", short="Export", needs="audit.export"),
        Key("r", "report", "Write a report to a file", "audit", short="Report", needs="audit.export"),
        Key("a", "archive", "Archive old records to a signed file", "audit", short="Archive", needs="audit.archive"),
        Key("y", "copy", "Copy", "audit"),
    ),
    "log": (
        Key("p", "previous", "Launch before", "log"),
        Key("tab", "replica", "Next replica", "log", priority=True),
        Key("slash", "filter", "Filter", "log"),
        Key("y", "copy", "Copy line", "log"),
    ),
    "whole": (Key("y", "copy", "Copy", "whole text"),),
}
