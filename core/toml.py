"""A TOML text as Structs: what is wrong is said with its line and key, what was found, what is allowed, an example."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from core.amounts import LARGEST, as_typed, size_of
from core.errors import Invalid

T = TypeVar("T")
TODO = "nothing was changed: mend the line, then `corral reload` (or any verb where no daemon runs)"
_SHOWN = 60
"""Characters of a wrong value that are shown."""
USUAL: dict[str, int | str] = {"keep_days": 90, "threads": 4, "hub": "https://hub.example.com"}
"""Examples of keys whose default, a 0 or nothing, stands for something else."""
NONE = {
    "keep_days": "0 keeps chats for ever", "threads": "0 takes the usable cores less one",
    "reserve_bytes": "0 keeps a tenth of the memory", "rate_bytes": "0 is no cap",
}  # fmt: skip
"""What a 0 stands for."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Wrong(Exception):
    """A value that cannot be: what was found, what is allowed."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(found)
        self.found, self.allowed = found, allowed


def read(text: str, name: str, type: type[T]) -> T:
    """`text` as the Struct `type`, whose tables are Structs with a default for each key. A key that ends in `_bytes` is
    a size: bytes, or text as `--memory` takes it. Raises `Invalid`: `name:line: key: what was found`."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise Invalid(f"{name}: not valid TOML", "it is nested too deeply", TODO) from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        number = int(line[1]) if line else max(1, len(text.splitlines()))
        raise Invalid(f"{name}:{number}: not valid TOML", str(error), TODO, line=number) from error
    except ValueError as error:
        raise Invalid(f"{name}: not valid TOML", "a number in it has thousands of digits", TODO) from error
    found = inspect.type_info(type)
    assert isinstance(found, inspect.StructType)

    return msgspec.convert(_table(data, found, [], partial(refusal, text, name)), type)


def refusal(text: str, name: str, keys: list[str], what: str, why: str, todo: str) -> Invalid:
    """The error that names the line of `text` on which `keys` (table, key) is set."""
    number = _line_of(text, keys)
    where = ".".join(keys)
    return Invalid(f"{name}:{number}: {what}", why, f"{todo}; {TODO}" if todo else TODO, line=number, key=where)


Refuse = Callable[[list[str], str, str, str], Invalid]


def _table(data: dict[str, Any], type: inspect.StructType, keys: list[str], refuse: Refuse) -> dict[str, Any]:
    """The table with sizes as bytes. Raises what `refuse` makes of the first wrong value."""
    fields = {field.name: field for field in type.fields}
    out = {}
    for key, value in data.items():
        here = [*keys, key]
        if key not in fields:
            raise refuse(here, f"unknown key {_shown(key)}" + (f" in [{'.'.join(keys)}]" if keys else ""),
                         f"there is {_listed(sorted(fields))}", "")  # fmt: skip
        field = fields[key]
        if isinstance(field.type, inspect.StructType):
            if not isinstance(value, dict):
                raise refuse(here, f"{key} is {_said(value)}", "it is a table", f"write [{key}] on a line of its own")
            out[key] = _table(value, field.type, here, refuse)
            continue
        if isinstance(field.type, inspect.DictType):
            inner = field.type.value_type
            assert isinstance(inner, inspect.StructType)
            for name, table in value.items() if isinstance(value, dict) else [("", value)]:
                if not isinstance(table, dict):
                    raise refuse([*here, name] if name else here, f"{name or key} is {_said(table)}", "it is a table",
                                 f'write [{".".join(here)}."NAME"] on a line of its own')  # fmt: skip
                if "*" in name[:-1]:
                    raise refuse([*here, name], f"{name} is no pattern", "a star stands at its end only", "")
            out[key] = {name: _table(table, inner, [*here, name], refuse) for name, table in value.items()}
            continue
        try:
            out[key] = _value(value, field.type, key.endswith("_bytes"))
        except _Wrong as wrong:
            raise refuse(here, f"{'.'.join(here)} is {wrong.found}", f"it may be {wrong.allowed}",
                         f"for example `{key} = {example(key, _usual(field))}`{_none(key)}") from None  # fmt: skip
    return out


def example(key: str, default: object) -> str:
    """A right value of a key, as TOML."""
    if isinstance(default, bool):
        return "false" if default else "true"
    if isinstance(default, tuple):
        return "[" + ", ".join(f"{each:g}" for each in default) + "]"
    if isinstance(default, str):
        return json.dumps(default or USUAL.get(key) or "/usr/local/bin/" + key.replace("_", "-"))
    if key.endswith("_bytes") and isinstance(default, int):
        return f'"{as_typed(default or 4 << 30)}"'
    return f"{USUAL.get(key, default)}"


def _usual(field: inspect.Field) -> object:
    """The default; where that is an empty word out of several, one that says something."""
    if isinstance(field.type, inspect.LiteralType) and not field.default:
        return field.type.values[-1]
    return field.default


def _none(key: str) -> str:
    return f"; {NONE[key]}" if key in NONE else ""


def _value(value: Any, type: inspect.Type, size: bool) -> Any:
    if isinstance(type, inspect.IntType):
        return _size(value, type) if size else _whole(value, type)
    if isinstance(type, inspect.FloatType):
        return _number(value, type)
    if isinstance(type, inspect.BoolType):
        if not isinstance(value, bool):
            raise _Wrong(_said(value), "`true` or `false`, without quotes")
        return value
    if isinstance(type, inspect.LiteralType):
        if not isinstance(value, str) or value not in type.values:
            raise _Wrong(_said(value), _listed([json.dumps(each) for each in type.values]))
        return value
    if isinstance(type, inspect.VarTupleType):
        item = type.item_type
        assert isinstance(item, inspect.FloatType)
        if not isinstance(value, list):
            raise _Wrong(_said(value), f"a list, each {_range('a number', item)}")
        return tuple(_number(each, item) for each in value)
    if isinstance(type, inspect.UnionType):  # one text, or a list of them
        if not isinstance(value, list):
            return _value(value, inspect.StrType(), size)
        return tuple(_value(each, inspect.StrType(), size) for each in value)
    assert isinstance(type, inspect.StrType)
    if not isinstance(value, str) or _CONTROL.search(value):
        raise _Wrong(_said(value), "text on one line, in quotes")
    if type.pattern is not None and value and not re.match(type.pattern, value):
        raise _Wrong(_said(value), "an absolute path, or empty: the daemon's own folder is /")
    return value


def _size(value: Any, type: inspect.IntType) -> int:
    low = type.ge or 0
    amount = value
    if isinstance(value, str):
        try:
            amount = size_of(value)
        except ValueError:
            amount = None
    if not isinstance(amount, int) or isinstance(amount, bool) or not low <= amount <= LARGEST:
        above = f" from {as_typed(low)} on" if low else ""
        raise _Wrong(_said(value), f'a size{above}: bytes, or text like "512M", "4G" or "1.5GiB"')
    return amount


def _whole(value: Any, type: inspect.IntType) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not _within(value, type):
        raise _Wrong(_said(value), _range("a whole number", type))
    return value


def _number(value: Any, type: inspect.FloatType) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not _within(value, type):
        raise _Wrong(_said(value), _range("a number", type))
    return float(value)


def _within(value: float, type: inspect.IntType | inspect.FloatType) -> bool:
    return not (
        (isinstance(value, float) and not math.isfinite(value))
        or (type.ge is not None and value < type.ge)
        or (type.gt is not None and value <= type.gt)
        or (type.le is not None and value > type.le)
    )


def _range(what: str, type: inspect.IntType | inspect.FloatType) -> str:
    low = f" above {type.gt:g}" if type.gt is not None else f" from {type.ge:g}" if type.ge is not None else ""
    return what + low + (f" to {int(type.le)}" if type.le is not None else "")


def _said(value: Any) -> str:
    """A value as words, its kind first."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`, yes or no"
    for kind, words in (
        (int, "the whole number"), (float, "the number"), (str, "the text"), (datetime, "the time"),
        (date, "the date"), (time, "the time"), (list, "a list"), (dict, "a table"),
    ):  # fmt: skip
        if isinstance(value, kind):
            return words if kind in (list, dict) else f"{words} {_shown(value)}"
    return "something else"


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 1 << 64:
        return "with more digits than any setting has"  # str() of a long one raises
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _listed(words: Sequence[str]) -> str:
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else "".join(words)


def _line_of(text: str, keys: list[str]) -> int:
    """The line on which `keys` (table, key) is set; 1 if it is not found."""
    table: list[str] = []
    best = 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            table = _parts(header[1])
            if table[: len(keys)] == keys:
                return number
            continue
        pair = re.match(r"\s*([^=#\[\]]+?)\s*=", line)
        if pair:
            full = table + _parts(pair[1])
            if full == keys:
                return number
            if keys[: len(full)] == full:
                best = number
            elif full[: len(keys)] == keys:  # a table that is only named by its keys
                return number
    return best


def _parts(dotted: str) -> list[str]:
    return [part.strip(" \t\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", dotted)]
