"""The worst that people type after each verb about models: what is said of it, with which exit code, and never a word
that only a programmer understands. Through the command, with a real daemon."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import command
import pytest
from command import corral
from hub_double import HubDouble, in_a_thread
from pullworld import model
from stores import file

from tui.cli import cli

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

REPO = "acme/tiny-GGUF"
UGLY = ("Traceback", "[Errno", "is a bug", "no such route", "'s body", "Expected `", "None", "''", "\x1b", "at not")
"""What is in no answer, whatever was asked."""

# The command, the exit code, and words of what is said. {F}: a folder with the files of `files` below; {T}: one for
# tiers; {U}: the stand-in for a hub.
ROWS = """
models nosuch | 2 | there is no verb 'nosuch'
models ls x | 2 | unexpected extra argument
models show nosuch | 3 | there are: m
models show "" | 2 | a name is empty
models show m@9 | 3 | m has @1, :live, @2
models show m@0 | 2 | after @ comes a number
models show m@-1 | 2 | after @ comes a number
models show m@99999999999999999999999 | 2 | after @ comes a number
models show m: | 2 | after : comes an alias
models show m@sha256:zz | 2 | 8 or more hexadecimal digits
models show ../m | 3 | no model '../m'
models show m/../../audit | 3 | no model
models show "m{ESC}[2J" | 3 | no model 'm\\x1b[2J'
models show "m{BYTE}" | 3 | no model 'm%FF'
models versions nosuch | 3 | no model
models versions m@1 | 2 | name the model alone
models versions "" | 2 | empty
models alias m live | 2 | say what it shall mean, or --rm
models alias m live 9 | 3 | no version m@9
models alias m live nosuch | 3 | no version m:nosuch
models alias m@1 live 1 | 2 | name the model alone
models alias nosuch live 1 | 3 | no model
models alias m "Bad Alias" 1 | 2 | no alias that can be set
models alias m 3 1 | 2 | taken for the number of a version
models alias m new "" | 2 | empty
models alias m live --rm | 1 | move it: corral models alias m live N
models alias m none --rm | 3 | m has no alias 'none'
models alias m live --rm --dry-run | 2 | say what it shall mean
models diff m | 3 | name two: corral models diff m@1 m@2
models diff m@1 | 2 | name two versions
models diff m@1 n@1 | 2 | versions of different models
models diff nosuch | 3 | no model
models history nosuch | 3 | no model
models history m -n 0 | 2 | not in the range
models template nosuch | 3 | no model
models note m | 2 | say --label or --notes
models note nosuch --label x | 3 | no model
models gc --older-than nan | 2 | no number from 0
models gc --older-than -1 | 2 | no number from 0
models gc | 2 | say --yes
models verify nosuch | 3 | no model
models verify "" | 2 | empty
models verify --status --cancel | 2 | say models, --status or --cancel
models verify --cancel | 3 | no verification is on its way
models verify --status | 3 | nothing was verified yet
models rm nosuch | 3 | no model
models rm "" | 2 | a name is empty
models rm m:live --yes | 1 | what it means is removed by its number
models rm m@1 --yes | 1 | m:live means it
models rm m@9 --yes | 3 | no version m@9
models rm m | 2 | Remove the model m (@1 and @2) and its files of
models sample --name No | 2 | no name for a model
models move nosuch --to home | 3 | no model
models move m --to nosuch | 3 | there are: home
models move m | 2 | Missing option '--to'
models move m --to home | 1 | is on home already
models move "" --to home | 2 | a name is empty
models moves --cancel nosuch | 3 | no move 'nosuch'
models moves --cancel "" | 2 | empty
models loads nosuch | 3 | no model
models corrections nosuch | 2 | there is no verb
models corrections rm nosuch | 3 | nothing was learned of 'nosuch'
models corrections restore nosuch | 3 | nothing was learned of 'nosuch'
models fits nosuch | 2 | unexpected extra argument
models catalogue --for poetry | 2 | 'poetry' is not one of
models catalogue --for code show phi-4 | 2 | --for goes with the list
models catalogue show nosuch | 3 | `corral models catalogue` lists what there is
models catalogue show "" | 2 | empty

models import "" | 2 | empty
models import {F}/nosuch.gguf | 3 | is not there
models import https://example.org/x.gguf | 2 | corral models pull https://example.org/x.gguf
models import hf:acme/x | 2 | corral models pull hf:acme/x
models import {F}/empty.gguf | 1 | the file is empty
models import {F}/cut.gguf | 1 | truncated
models import {F}/text.gguf | 1 | this is no GGUF file
models import {F}/pickle.gguf | 1 | it is a pickle
models import {F}/two | 1 | it holds a.gguf, b.gguf
models import {F}/none | 1 | it holds no .gguf file
models import {F}/pipe.gguf | 1 | it is a named pipe
models import {F}/loop.gguf | 1 | levels of symbolic links
models import /dev/zero | 1 | it is a device
models import {F}/x-00001-of-00003.gguf | 1 | missing: x-00002-of-00003.gguf, x-00003-of-00003.gguf
models import {F}/y-00001-of-99999.gguf | 1 | absurd count of parts
models import {F}/one.gguf --name "No Name" | 2 | no name for a model
models import {F}/one.gguf --name ../../etc | 2 | no name for a model
models import {F}/one.gguf --name m@3 | 2 | no name for a model
models import {F}/one.gguf --name "" | 2 | empty
models import {F}/one.gguf --name m | 1 | give it another --name to have it twice
models import {F}/one.gguf --name o --default temperature=hot | 2 | not NAME=NUMBER
models import {F}/one.gguf --name o --default temperature=nan | 2 | not NAME=NUMBER
models import {F}/one.gguf --name o --default temperature=1e400 | 2 | not NAME=NUMBER
models import {F}/one.gguf --name o --default nosuch=1 | 2 | it may be temperature
models import {F}/one.gguf --name o --projector {F}/two.gguf | 1 | is no projector
models import {F}/one.gguf --name o --projector {F}/nosuch | 3 | is not there
models import {F}/one.gguf --name o --adapter {F}/two.gguf | 1 | is no adapter
models import {F}/one.gguf --name o --adapter "" | 2 | empty
models import {F}/one.gguf --name o --template {F}/pickle.gguf | 2 | it is not UTF-8
models import {F}/one.gguf --name o --template {F}/nosuch | 3 | is not there
models import {F}/one.gguf --name o --template {F}/none | 2 | Is a directory
models import {F}/one.gguf --name o --template /dev/zero | 2 | longer than 1 MiB

models pull "" | 2 | empty
models pull {F}/nosuch.gguf | 3 | is not there
models pull {F}/nosuch.gguf --list | 2 | --list is for
models pull {F}/one.gguf --sha256 abc | 2 | are for a repository or an address
models pull {F}/one.gguf --projector | 2 | models import FILE --projector FILE
models pull hf: | 2 | names no repository
models pull hf:nothing | 2 | hf:ORG/REPO
models pull hf:../.. | 2 | names no repository
models pull hf:acme/none | 3 | no repository 'acme/none'
models pull hf:{R}:Q9 | 3 | there are: Q4_0
models pull hf:{R} --limit fast | 2 | no size
models pull hf:{R} --limit -1 | 2 | no size
models pull hf:{R} --ctx -1 | 2 | no whole number
models pull hf:{R} --sha256 abc | 2 | 64 hex digits
models pull hf:{R} --name "No Name" | 2 | no name for a model
models pull ftp://h/x.gguf | 2 | it is no https address
models pull https:// | 2 | it is no https address
models pull https://h/ | 1 | the address names no file
models pull https://h/x.bin | 1 | pickle
models pull https://h/x.safetensors | 1 | no engine that Corral starts reads
models pull https://u:p@h/x.gguf | 2 | password
models pull http://127.0.0.1:9/x.gguf | 1 | Connection refused
models pull {U}/files/none.gguf | 3 | none.gguf
models pulls nosuch | 2 | there is no verb
models pulls ls x | 2 | unexpected extra argument
models pulls pause nosuch | 3 | no pull 'nosuch'
models pulls resume nosuch | 3 | no pull 'nosuch'
models pulls resume nosuch --limit x | 2 | no size
models pulls cancel ../x | 3 | no pull '../x'
models pulls cancel "" | 2 | empty
models pulls undeploy nosuch | 3 | no pull 'nosuch'
models pull hf:{R} --parallel 2 | 2 | --parallel goes with --deploy NAME
models pull hf:{R} --replace | 2 | --replace goes with --deploy NAME
models pull hf:{R} --deploy "No Name" | 2 | no name for a deployment
models pull hf:{R} --deploy x --engine attach | 2 | serves no model of this host
models pull hf:{R} --deploy x --tier nosuch | 3 | there are: home
models pull {F}/one.gguf --deploy x | 2 | `corral deploy` later

tiers nosuch | 2 | there is no verb
tiers ls x | 2 | unexpected extra argument
tiers show nosuch | 3 | there are: home
tiers show "" | 2 | a name is empty
tiers add fast | 2 | Missing argument 'PATH'
tiers add "" {T}/tier | 2 | empty
tiers add Bad {T}/tier | 2 | no name for a tier
tiers add home {T}/tier | 2 | home is taken
tiers add fast {T}/nosuch | 2 | make it: install -d -m 700
tiers add fast {T}/file | 2 | is no folder
tiers add fast {T}/open | 2 | chmod go-w
tiers add fast {T}/link | 2 | name that path: links may be turned
tiers add fast {H} | 2 | in, or around, Corral's own folder
tiers add fast / | 2 | in, or around
tiers add fast {T}/tier --capacity lots | 2 | no size
tiers add fast {T}/tier --capacity 99999999999999999999999T | 2 | no size
tiers add fast {T}/tier --spill nosuch | 3 | no tier 'nosuch'
tiers add fast {T}/tier --spill fast | 2 | fast cannot spill to itself
tiers add fast {T}/tier --demote-after 30 | 2 | --demote-after and --demote-to
tiers add fast {T}/tier --demote-after nan --demote-to home | 2 | no whole number from 0
tiers add small {T}/small --capacity 1KiB --no-speed | 0 | small takes 1.0 KiB
tiers add small {T}/tier --no-speed | 1 | a tier 'small' exists
tiers add other {T}/small | 2 | in, or around, the tier small
tiers add small {T}/small --take-over | 1 | it lies in
tiers add taken {T}/theirs --no-speed | 1 | it is large of the database another
tiers add taken {T}/theirs --take-over | 2 | it is large of the database another. Taken over
tiers add taken {T}/theirs --take-over --yes --no-speed | 0 | taken takes
tiers set nosuch --default | 3 | no tier
tiers set small | 2 | say a rule
tiers set small --spill small | 2 | small cannot spill to itself
tiers set small --demote-after 3 --demote-to small | 2 | small cannot demote to itself
tiers rm home | 1 | home stays
tiers set small --demote-after -4 | 2 | no whole number from 0
tiers set small --demote-after 0.00001 --demote-to home | 2 | no whole number from 0
tiers set small --capacity "" | 2 | it is empty
tiers set small --capacity 0.5 | 2 | no size
tiers set home --capacity 1 | 1 | home holds more than that
models move m --to small | 5 | of 1 KiB of small 0 B are stored
tiers demote nosuch | 3 | no tier
tiers demote small | 1 | has no rule
tiers check nosuch | 3 | no tier
tiers check "" | 2 | empty
tiers check small --speed | 5 | the speed cannot be measured
tiers rm nosuch | 3 | no tier
tiers rm home --yes | 1 | home stays
tiers set home --spill small | 0 | spills to small
tiers rm small | 2 | home spills nowhere then
tiers rm small --yes | 0 | home spills nowhere then

fit "" | 2 | empty
fit nosuch | 3 | no model
fit m: | 2 | after : comes an alias
fit m --ctx -1 | 2 | it may be 0 to
fit m --ctx 99999999999999999999 | 2 | it may be 0 to
fit m --parallel 0 | 2 | it may be 1 to 256
fit m --cache-type q9 | 2 | not one of
fit m --engine nosuch | 2 | this daemon knows xllamacpp
fit m --engine attach | 2 | takes no memory of this host
fit m --memory x | 2 | no size
fit m --memory 1 | 5 | does not fit
fit m --gpu x | 2 | no size
fit m --gpu-layers 3 | 2 | go with --gpu
fit m --threads 99999 | 2 | it may be 0 to 1024
fit m --users 1000 | 2 | no whole number from 1 to 256
fit m --users 0 | 2 | no whole number from 1 to 256
fit m --prompt 0 | 2 | a prompt has 0 tokens
fit m --prompt -4 | 2 | no number of tokens

models bench "" | 2 | it is empty
models bench | 2 | name a model
models bench --status | 3 | no model is being measured now
models bench nosuch | 3 | no model
models bench m:x --last | 3 | no version m:x
models bench m --threads 0 | 2 | threads is 0
models bench m --threads 9999 | 2 | threads is 9999
models bench m --parallel 1,a | 2 | '1,a' is no list of whole numbers
models bench m --threads abc | 2 | 'abc' is no list of whole numbers; say 2, or 1,2,4
models bench m --cancel | 3 | not being measured
models bench m --status | 3 | corral models bench m
models bench m --status --cancel | 2 | one of them
nodes bench --cancel | 3 | not being measured
models bench m --ctx 99999999 | 2 | it may be 256 to
models bench m --engine attach | 2 | cannot be started here
models bench m --engine nosuch | 2 | this daemon knows xllamacpp
nodes bench nosuch | 3 | there is local
nodes bench "" | 2 | empty

models recommend --for poetry | 2 | 'poetry' is not one of
models recommend --users 0 | 2 | no whole number from 1 to 256
models recommend --context "8 kg" | 2 | no number of tokens
models recommend --context 1 | 2 | it may be 256 to
models recommend --min-speed nan | 2 | no number from 0
models recommend --memory lots | 2 | no size
models recommend --memory 1 | 5 | nothing meets every wish
models recommend --node elsewhere | 3 | no node
models recommend --node "" | 2 | empty
models recommend --licence "" | 2 | empty
models recommend --licence "[[" | 5 | nothing meets every wish
models recommend --prompt 0 | 2 | it may be 1 to
models recommend --limit 0 | 2 | no whole number from 1 to 100
"""
OF = (("models",), ("tiers",), ("fit",), ("nodes", "bench"))
NOTHING_BAD = {("models",), ("tiers",), ("models", "corrections"), ("models", "pulls"), ("models", "catalogue")}
"""Groups, whose lists take no input."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with in_a_thread() as made:
        made.repos[REPO] = {"tiny-Q4_0.gguf": model(2000)}
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def files(folder: Path) -> Path:
    """Files that are no models, and some that are."""
    folder.mkdir()
    one, two = (file(folder, n).rename(folder / name) for n, name in ((1, "one.gguf"), (2, "two.gguf")))
    good = one.read_bytes()
    for name, data in {
        "empty.gguf": b"", "cut.gguf": good[:100], "text.gguf": b"hello" * 100, "pickle.gguf": b"\x80\x04" * 100,
        "x-00001-of-00003.gguf": good, "y-00001-of-99999.gguf": good, "two/a.gguf": good, "two/b.gguf": good,
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "none").mkdir()
    os.mkfifo(folder / "pipe.gguf")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    assert two.exists()
    return folder


def places(folder: Path) -> Path:
    """Folders that may be tiers, and some that may not."""
    for name, mode in (("tier", 0o700), ("small", 0o700), ("theirs", 0o700), ("open", 0o777)):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(mode)
    folder.chmod(0o700)
    (folder / "file").touch()
    (folder / "theirs" / ".corral-tier").write_text('{"id": "1", "name": "large", "database": "another"}')
    (folder / "link").symlink_to("tier")
    return folder


def rows() -> list[tuple[str, int, str]]:
    parts = [row.rsplit(" | ", 2) for row in ROWS.splitlines() if row]
    return [(args, int(code), words) for args, code, words in parts]


def test_each_verb_is_told_what_it_may_not_be_given_and_says_so(
    home: Path, hub: HubDouble, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = files(tmp_path / "files")
    tiers = places(tmp_path_factory.mktemp("tiers") / "t")
    for name, which in (("m", "one"), ("m", "two"), ("n", "one")):
        corral("models", "import", str(there / f"{which}.gguf"), "--name", name)
    before = corral("models", "ls", "--versions", "--json")
    wrong = []
    for args, code, words in rows():
        filled = args.format(F=there, T=tiers, H=home, U=hub.url, R=REPO, ESC="\x1b", BYTE="\udcff")
        done = command.run(*shlex.split(filled))
        told = done.stdout + done.stderr
        if done.returncode != code or words not in told or _ugly(args, code, done):
            wrong.append(f"{args}: {done.returncode}\n{told}")
    assert not wrong, "\n".join(wrong)
    assert corral("models", "ls", "--versions", "--json") == before
    assert [path for path in home.rglob("incoming/*")] == []


def _ugly(args: str, code: int, done: subprocess.CompletedProcess[str]) -> bool:
    told = done.stdout + done.stderr
    plain = code == 2 or not code or done.stderr.startswith("corral: ") or args.startswith(("fit", "models recommend"))
    return not plain or any(each in told for each in UGLY)


def test_every_verb_has_a_row() -> None:
    given = [shlex.split(args) for args, _, _ in rows()]

    def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if path not in NOTHING_BAD:
            yield path
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from leaves(found, (*path, name))

    missing = []
    for path in OF:
        found: click.Command = cli
        for name in path:
            assert isinstance(found, click.Group)
            inner = found.get_command(click.Context(found), name)
            assert inner is not None
            found = inner
        missing += [each for each in leaves(found, path) if not any(tuple(g[: len(each)]) == each for g in given)]
    assert not missing
