"""Screen 8: who may do what, and what the one at the terminal may not do is dim on every screen, with the reason."""

from __future__ import annotations

import msgspec
import pytest

from core.nouns import GrantShown, Mark, Subject
from tests.tui.test_keys import dimmed
from tui.deeds import deeds
from tui.widgets.table import Table


async def test_grants_roles_and_teams_stand_on_the_screen(console, fake):
    async with console("8") as it:
        await it.until("group:staff")
        for words in ("MAY NOT", "deployments.rm", "deployment:chat", "runs things", "user:bob", "on call"):
            assert words in it.text, words


async def test_a_grant_shows_what_it_would_give_before_it_is_sent(console, fake):
    async with console("8") as it:
        await it.until("group:staff")
        await it.press("n")
        await it.until("Grant or deny")
        await it.until("Say what")
        await it.press("tab", "tab")
        await it.type("librarian")
        await it.until("gains  user:bob  models.rm  on model:gemma")
        assert not [call for call in fake.calls if call[0] == "grant"]
        await it.press("ctrl+s")
        await it.until("Grant g3 is in force")
        (made,) = [call[1] for call in fake.calls if call[0] == "grant"]
        assert (made["what"], made["scope"], made["deny"], made["until"]) == ("librarian", "*", False, None)


async def test_what_is_wrong_in_a_grant_is_said_while_one_types(console, fake):
    async with console("8") as it:
        await it.until("group:staff")
        await it.press("n", "tab")
        await it.type("be")
        await it.press("tab")
        await it.type("viewer")
        await it.until("is may or not")
        await it.press("ctrl+s")
        assert not [call for call in fake.calls if call[0] == "grant"]


async def test_revoking_says_how_much_changes_and_asks(console, fake):
    async with console("8") as it:
        await it.until("group:staff")
        await it.press("x")
        await it.until("Revoke g1")
        assert "1 decisions change" in it.text
        await it.press("y")
        await it.until(lambda: ("revoke", "g1") in fake.calls)


async def test_a_personal_grant_beside_a_teams_is_told_with_it_and_when_its_owner_leaves_the_team(
    console, fake, doubles
):
    bob = doubles.Subject(kind="user", name="bob", id=7)
    fake.access.there = [
        doubles.grant("g8", "deployments.st*", bob, "deployment:*"),
        doubles.grant("g9", "operator", doubles.Subject(kind="team", name="ml")),
    ]
    async with console("8") as it:
        await it.until("g9 by root")
        await it.press("down")
        await it.until("g8 is user:bob's own, beside g9 of team:ml: out of the team he keeps it")
        await it.press("t")
        await it.type("ml")
        await it.press("tab")
        await it.type("user:bob")
        await it.until("As it is")
        assert "keeps" not in it.text
        await it.press("backspace")
        await it.until("user:bob keeps deployments.st* on deployment:*: corral access revoke g8")
        assert "leaves  user:bob" in it.text


async def test_explain_answers_while_one_types(console, fake):
    async with console("8") as it:
        await it.until("group:staff")
        await it.press("e")
        await it.type("bob")
        await it.press("tab", "tab")
        await it.type("deployment:gemma")
        await it.until("NO: no grant gives it")
        assert ("explain", "bob", "deployments.use", "deployment:gemma") in fake.calls


async def test_explain_begins_with_the_user_and_the_object_of_the_row_and_what_is_about_it(console, fake, doubles):
    fake.access.there = [doubles.grant("g7", "user", doubles.Subject(kind="user", name="eve", id=9), "model:gemma")]
    async with console("8") as it:
        await it.until("user:eve")
        await it.press("e")
        await it.until("NO: no grant gives it")
        assert ("explain", "eve", "models.read", "model:gemma") in fake.calls


async def test_who_may_not_read_the_grants_sees_his_own_and_every_key_is_dim(console, fake, doubles):
    mine = doubles.grant("g7", "user", doubles.Subject(kind="user", name="ann", id=1000), "deployment:chat")
    fake.me = doubles.somebody(("deployments.use", "deployment:chat"), grants=(mine,))
    async with console("8") as it:
        await it.until("user:ann")
        assert "You are ann: user on deployment:chat" in it.text and "on call" not in it.text
        assert {"n", "x", "e", "t", "o"} <= dimmed(it)
        await it.press("n")
        await it.until("ann may not access.grant")


@pytest.mark.parametrize(
    ("held", "denied", "key", "words"),
    [
        ((("deployments.read", "*"),), (), "x", "ann may not deployments.rm: no grant gives it"),
        ((("deployments.rm", "deployment:embed"),), (), "x", "ann may deployments.rm on deployment:embed only"),
        ((("deployments.rm", "*"),), (("deployments.rm", "deployment:ch*"),), "x", "grant g1 denies it"),
        ((("deployments.stop", "model:*"),), (), "s", "not on deployment:chat"),
    ],
)
async def test_what_the_actor_may_not_do_is_dim_and_the_key_says_why(console, fake, doubles, held, denied, key, words):
    fake.me = doubles.somebody(*held, denied=denied)
    async with console("2") as it:
        await it.until("replica")
        await it.until(lambda: key in dimmed(it))
        await it.press(key)
        await it.until(words)


async def test_a_form_says_which_names_one_may_deploy_under(console, fake, doubles):
    fake.me = doubles.somebody(("deployments.create", "deployment:team-*"), ("deployments.read", "*"))
    async with console("2") as it:
        await it.until("replica")
        await it.press("d")
        await it.until("ann may deployments.create on deployment:team-* only")
        await it.press("ctrl+s")
        assert not [call for call in fake.calls if call[0] == "deploy"]


async def test_a_sensitive_deployment_is_marked_in_the_table_and_said_below_it(console, fake, doubles):
    mark = Mark(
        deployment="chat", labels=("zone=secure",), groups=(doubles.Subject(kind="team", name="ml"),), by="eve", at=0.0
    )
    fake.deployed = [doubles.deployment("chat", mark=mark), doubles.deployment("embed")]
    async with console("2") as it:
        await it.until("chat (sensitive)")
        assert "SENSITIVE, on nodes with zone=secure, keys of team:ml, no chats kept." in it.text
        assert "embed (sensitive)" not in it.text


async def test_what_he_may_do_is_not_dim(console, fake, doubles):
    fake.me = doubles.somebody(("deployments.rm", "deployment:ch*"), ("deployments.stop", "*"))
    async with console("2") as it:
        await it.until("replica")
        await it.until(lambda: "d" in dimmed(it))
        assert not {"x", "s"} & dimmed(it)


async def test_a_key_is_made_in_a_form_and_its_secret_shown_once(console, fake):
    async with console("8") as it:
        await it.until("60 requests/min")
        assert "10.0.0.7" in it.text and "revoked" in it.text
        await it.press("a")
        await it.until("Make an API key")
        await it.type("nightly")
        await it.press("tab", "tab", "tab")
        await it.type("sixty")
        await it.until("whole number")
        await it.press(*["backspace"] * 5)
        await it.type("0")
        await it.until("would be no limit")
        await it.press("backspace")
        await it.type("9")
        await it.until("It may use *")
        await it.press("ctrl+s")
        await it.until("corral_SECRET")
        (made,) = [call[1] for call in fake.calls if call[0] == "create_key"]
        assert made["name"] == "nightly" and made["limits"]["rpm"] == 9 and made["deployments"] == ["*"]
        await it.press("escape")
        await it.until("group:staff")
        assert "corral_SECRET" not in it.text


async def test_x_revokes_the_key_under_the_cursor_of_the_lower_table(console, fake):
    async with console("8") as it:
        await it.until("60 requests/min")
        await it.press("tab", "x")
        await it.until("Revoke the key ci")
        await it.press("y")
        await it.until(lambda: ("revoke_key", "k1") in fake.calls)
        await it.press("j", "x")
        await it.until("old was revoked")


async def test_a_service_account_is_made_disabled_enabled_and_removed(console, fake):
    async with console("8") as it:
        await it.until("active, user:ann, batch")
        assert "disabled by eve: abuse, user:bob" in it.text
        await it.press("s")
        await it.until("Make a service account")
        await it.type("ci")
        await it.until("It may nothing until something is granted to account:ci")
        await it.press("tab")
        await it.type("team:ml")
        await it.press("ctrl+s")
        await it.until(lambda: ("create_account", "ci", {"owner": "team:ml", "words": ""}) in fake.calls)
        await it.until("grant it something with n")
        await it.press("tab", "j", "j", "s")
        await it.until("Disable nightly?")
        await it.press("y")
        await it.until(lambda: ("disable_account", "nightly") in fake.calls)
        await it.press("j", "s")
        await it.until("eve disabled it")
        await it.press("y")
        await it.until(lambda: ("enable_account", "paused") in fake.calls)
        await it.press("x")
        await it.until("Remove the service account paused of user:bob?")
        await it.press("y")
        await it.until(lambda: ("rm_account", "paused") in fake.calls)


async def test_of_keys_and_accounts_ones_own_are_not_dim_and_others_are(console, fake, doubles):
    fake.me = doubles.somebody(("keys.own", "*"), ("accounts.own", "*"))
    async with console("8") as it:
        await it.until("60 requests/min")
        await it.press("tab")
        await it.until(lambda: "x" not in dimmed(it))  # his key
        await it.press("j", "j")
        await it.until(lambda: not {"x", "s"} & dimmed(it))  # his account
        await it.press("j")
        await it.until(lambda: {"x", "s"} <= dimmed(it))
        await it.press("x")
        await it.until("ann may not accounts.manage")


async def test_the_palette_says_what_one_may_not_do_before_one_tries(console, fake, doubles):
    fake.me = doubles.somebody(("deployments.read", "*"), ("deployments.stop", "deployment:embed"))
    async with console("9") as it:
        await it.until(lambda: it.app.state.me is not None)
        there = deeds(it.app.screen.ROOM, it.app.screen.choices(), it.app.state)
        said = {deed.words: deed.why for deed in there}
        assert said["embed: stop"] == "" and "ann may deployments.stop on deployment:embed only" in said["chat: stop"]
        for words, permission in (
            ("chat: remove", "deployments.rm"),
            ("chat: chat with it", "chats.own"),
            ("Deploy (Deployments)", "deployments.create"),
            ("gemma: remove the model", "models.rm"),
            ("shut down the daemon; models run on", "daemon.shutdown"),
            ("reload: read corral.toml again", "daemon.reload"),
            ("Make an API key (Access)", "keys.own"),
        ):
            assert f"ann may not {permission}" in said[words], words


async def test_teams_and_roles_are_not_taken_for_keys(console, fake):
    async with console("8") as it:
        await it.until("60 requests/min")
        await it.press("tab", "G", "x")
        await it.until("removed by")
        assert not [call for call in fake.calls if call[0].startswith("revoke")]


async def test_limits_stand_there_with_what_is_left_and_are_removed_by_their_row(console, fake):
    async with console("8") as it:
        await it.until("42 of 100 requests/min")
        assert "5000 tokens/day, each his own" in it.text
        await it.press("tab", *"jjjj", "x")
        await it.until("Remove all limits of each:user")
        await it.press("y")
        await it.until(lambda: ("rm_limits", "each:user") in fake.calls)


async def test_limits_are_set_in_a_form_that_has_what_is_set_now(console, fake):
    async with console("8") as it:
        await it.until("42 of 100 requests/min")
        await it.press("tab", *"jjjjj", "l")
        await it.until("Now 100 requests/min")
        await it.until("group:people has 42 of 100 requests/min")
        await it.press("tab", "tab")
        await it.type("many")
        await it.until("whole number or `unlimited`")
        await it.press(*["backspace"] * 4)
        await it.type("900")
        await it.until("Then 100 requests/min, 900 tokens/min")
        await it.press("ctrl+s")
        await it.until("Limits of group:people are in force")
        (made,) = [call for call in fake.calls if call[0] == "set_limits"]
        assert made[1] == "group:people" and (made[2]["rpm"], made[2]["tpm"], made[2]["hours"]) == (100, 900, "")


async def test_who_may_not_set_limits_sees_why(console, fake, doubles):
    fake.me = doubles.somebody(("deployments.use", "*"))
    async with console("8") as it:
        await it.until("42 of 100 requests/min")
        assert "l" in dimmed(it)
        await it.press("l")
        await it.until("ann may not limits.set")
        await it.press("tab", "x")  # of keys and accounts he sees none: limits come first
        await it.until("ann may not limits.set: no grant gives it")


async def test_a_key_for_what_is_not_there_is_said_to_be_one(console):
    async with console("8") as it:
        await it.until("60 requests/min")
        await it.press("a")
        await it.until("Make an API key")
        await it.type("x")
        await it.press("tab", "tab")
        await it.type("none emb*")  # takes the place of the star that stands there
        await it.until("no deployment that you see is meant by none: there are chat, embed")


async def test_a_grant_of_who_has_left_the_host_is_dimmed_and_says_so(console, fake, doubles):
    left = doubles.grant("g9", "viewer", Subject(kind="user", name="ann", id=9), "*")
    why = "uid 9 is nobody's any more"
    fake.access.there = [GrantShown(**msgspec.structs.asdict(left), gone=why)]
    async with console("8") as it:
        await it.until(f"holds for nobody: {why}; g9 by root")
        assert [row.dim for row in it.app.screen.query_one("#grants", Table).rows] == [True]


async def test_grants_that_have_ended_are_left_out_until_asked_for(console, fake, doubles):
    over = doubles.grant("g9", "viewer", Subject(kind="user", name="gone", id=9), "*")
    fake.access.there = [*fake.access.there, msgspec.structs.replace(over, until=1.0)]
    async with console("8") as it:
        await it.until("group:staff")
        assert "user:gone" not in it.text
        await it.press("h")
        await it.until("user:gone")
        assert "1 ended grant shown" in it.text
        await it.press("h")
        await it.until("1 ended grant left out")
        assert "user:gone" not in it.text


async def test_limits_of_a_key_a_team_and_of_no_account(console, fake):
    """A service account has no limits of its own: what its keys and its owner have hold it."""
    for keys, whose in (("", "key:ann/ci"), ("jj", "each:user, each:key"), ("jjjjjj", "team:ml")):
        async with console("8") as it:
            await it.until("60 requests/min")
            await it.press("tab", *keys, "l")
            await it.until("Set limits")
            assert whose in it.text and "account:" not in it.text, keys


async def test_what_is_typed_takes_the_place_of_what_a_form_has_there(console, fake):
    async with console("8") as it:
        await it.until("group:staff")
        await it.press("e")
        await it.until("Explain a decision")
        await it.press("tab")
        await it.type("models.rm")
        assert it.app.screen.value("permission") == "models.rm"


async def test_a_grant_and_a_question_are_about_the_account_under_the_cursor(console):
    for press, field in (("n", "subject"), ("e", "user")):
        async with console("8") as it:
            await it.until("60 requests/min")
            await it.press("tab", "j", "j", press)
            await it.until(lambda: it.app.screen.__class__.__name__.endswith("Form"))
            assert it.app.screen.value(field) == "account:nightly"
