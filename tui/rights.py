"""What the person at the terminal may do, as the daemon told it: what a key is dimmed by. The daemon decides anew."""

from __future__ import annotations

from core.nouns import Held, Whoami


def fits(held: Held, object: str) -> bool:
    """Does this line speak of `object` (`kind:name`)? A star stands at a scope's end only."""
    return object.startswith(held.scope[:-1]) if held.scope.endswith("*") else object == held.scope


def lacks(me: Whoami | None, permission: str, object: str = "") -> str:
    """Why `me` may not do `permission` on `object` ("" for something at all), as a sentence; "" where he may, or where
    it is not known."""
    if me is None or me.because:
        return ""
    held = [each for each in me.holds if each.permission == permission]
    if not held:
        return f"{me.name} may not {permission}: no grant gives it (screen 8 shows yours)"
    if not object:
        whole = next((d for d in me.denied if d.permission == permission and d.scope == "*"), None)
        return f"{me.name} may not {permission}: grant {whole.grant} denies it" if whole is not None else ""
    denial = next((each for each in me.denied if each.permission == permission and fits(each, object)), None)
    if denial is not None:
        return f"{me.name} may not {permission} on {object}: grant {denial.grant} denies it"
    if any(fits(each, object) for each in held):
        return ""
    return f"{me.name} may {permission} on {', '.join(sorted({each.scope for each in held}))} only, not on {object}"


def unseen(me: Whoami | None, permission: str, what: str, object: str = "") -> str:
    """That `me` may not see `what`, which needs `permission`; "" where he may."""
    return f"You may not see {what} ({permission})" if lacks(me, permission, object) or _aside(me, permission) else ""


def _aside(me: Whoami | None, permission: str) -> bool:
    """Does `me` hold a permission to read on other kinds of things alone? A role on `deployment:*` shows no model."""
    noun, _, verb = permission.partition(".")
    if me is None or me.because or verb != "read":
        return False
    kind = noun.removesuffix("s")
    return not any(h.permission == permission and (h.scope == "*" or h.scope.startswith(f"{kind}:")) for h in me.holds)


def none(me: Whoami | None, words: str, todo: str, *needs: str) -> str:
    """`words` of what isn't there, and what to do about it where `me` may: that `needs` these permissions."""
    return words if any(lacks(me, each) for each in needs) else f"{words}: {todo}"
