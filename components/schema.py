"""A YAML document → frozen dataclasses, with errors that name the parameter and what it takes.

YAML is read with the 1.2 core rules, as DVC reads it: ``1e-3`` is a number, and only ``true`` and
``false`` are booleans (``off`` and ``no`` stay words).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from hypercut_core.errors import BadParameters, HypercutError, StorageError

Config = TypeVar("Config")

LARGEST_FILE = 256 * 1024  # bytes; a parameter file is a page or two
DEEPEST = 16  # levels of nesting


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.2 scalars; a repeated key is an error and not the last one's victory."""

    yaml_implicit_resolvers: typing.ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a word",
                                                        key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is given twice",
                                                        key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
              r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
# "012" is twelve in YAML 1.2, not octal; sexagesimals and dates stay words.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))  # type: ignore[arg-type]


def load_text(text: str, where: str | Path) -> Any:
    """Parse one YAML document.

    Raises:
        BadParameters: not YAML, a repeated key, anchors and aliases, or nesting deeper than 16 levels.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else "?"
                raise BadParameters(f"line {line} uses an alias (*name)", where=where,
                                    remedy="write the value out: parameter files take no anchors or aliases")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise BadParameters(f"values are nested more than {DEEPEST} levels deep", where=where)
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: constructs plain values only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise BadParameters(f"this is not a valid parameter file{line}: {problem}", where=where,
                            remedy="correct that line (YAML: 'key: value', two spaces a level)") from error


def load_file(path: Path) -> dict[str, Any]:
    """Read a parameter file of at most 256 KiB as a plain mapping.

    Raises:
        StorageError: it cannot be read.  BadParameters: it is not a YAML mapping.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise StorageError(f"the parameter file cannot be read ({error.strerror})", where=path,
                           remedy="name an existing file with --params") from error
    if len(raw) > LARGEST_FILE:
        raise BadParameters(f"the file is larger than {LARGEST_FILE} bytes", where=path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadParameters(f"the file is not UTF-8 text ({error.reason} at byte {error.start})",
                            where=path, remedy="save it as UTF-8") from error
    value = load_text(text, path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadParameters("the file holds no 'key: value' pairs at its top level", where=path)
    return value


def build(kind: type[Config], values: Mapping[str, Any], where: str | Path, prefix: str = "",
          base: Config | None = None) -> Config:
    """Make a `kind` from nested mappings; keys that are absent keep their value in `base`.

    Args:
        kind: a dataclass whose fields all have defaults.
        values: nested plain values, as read from YAML.
        where: the file or option that the values come from, for the errors.
        prefix: dotted name of `kind` inside the whole, with its final dot.
        base: what is changed; the defaults of `kind` if not given.

    Raises:
        BadParameters: an unknown key (with the closest known one) or a value of another type or range.
    """
    base = kind() if base is None else base
    hints = hints_of(kind)
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise unknown(prefix + key, [prefix + name for name in hints], where)
        name, hint = prefix + key, hints[key]
        if not dataclasses.is_dataclass(hint):
            made[key] = _checked(hint, value, name, where)
        elif isinstance(value, Mapping):
            made[key] = build(typing.cast(type[Any], hint), value, where, name + ".", getattr(base, key))
        else:
            example = f"{name}.{next(iter(hints_of(hint)), '...')}"
            raise BadParameters(f"'{name}' is a group of parameters, and was given {shown(value)}",
                                where=where, remedy=f"give its members, such as {example}")
    try:
        return dataclasses.replace(typing.cast(Any, base), **made)
    except HypercutError as error:  # a class's own __post_init__
        raise BadParameters(f"{prefix.rstrip('.') or 'parameters'}: {error.what}",
                            where=where, remedy=error.remedy) from error
    except (ValueError, TypeError) as error:
        raise BadParameters(f"{prefix.rstrip('.') or 'parameters'}: {error}", where=where) from error


def unknown(name: str, known: list[str], where: str | Path) -> BadParameters:
    """The error for a parameter that nobody defined, with the closest one that somebody did."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0 if len(known) == 1 else 0.5)
    group = name.rpartition(".")[0]
    if close:
        remedy = f"did you mean '{close[0]}'"
    else:
        names = ", ".join(k.rpartition(".")[2] for k in known)
        remedy = f"{group or 'the top level'} knows {names}" if names else f"'{group}' has no members"
    return BadParameters(f"unknown parameter '{name}'", where=where, remedy=remedy)


def hints_of(kind: Any) -> dict[str, Any]:
    """Field name → type of a dataclass; `Annotated` bounds are kept."""
    return _hints_of(kind)


@functools.cache
def _hints_of(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, type) of every parameter below `kind`."""
    for name, hint in hints_of(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


@functools.cache
def _adapter(hint: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def _checked(hint: Any, value: Any, name: str, where: str | Path) -> Any:
    from pydantic import ValidationError

    if isinstance(value, float) and not math.isfinite(value):
        raise BadParameters(f"'{name}' must be a finite number, got {value}", where=where)
    try:
        # JSON mode is strict about numbers and words, and still takes a list for a tuple.
        return _adapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        raise BadParameters(f"'{name}' must be {described(hint)}, got {shown(value)}", where=where,
                            remedy=_cure(hint, value, error)) from error


def _cure(hint: Any, value: Any, error: Exception) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (list, tuple) and not isinstance(value, list):
        return f"write it as a list: [{value}]"
    if origin is typing.Literal:
        close = difflib.get_close_matches(str(value), [str(item) for item in args], n=1)
        return f"did you mean '{close[0]}'" if close else "choose one of these"
    problem = getattr(error, "errors", lambda: [{"msg": str(error)}])()[0]["msg"]
    return f"{problem[:1].lower()}{problem[1:]}"


def shown(value: Any) -> str:
    """A value and its kind, short enough for an error."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", dict: "a group",
             list: "a list", type(None): "nothing"}
    text = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"{text} ({words.get(type(value), type(value).__name__)})"


def described(hint: Any) -> str:
    """A type in words: 'a whole number from 3 to 15', 'one of "srgb", "none"'."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return described(args[0]) + _bounds(args[1:])
    if origin is typing.Literal:
        return "one of " + ", ".join(json.dumps(item) for item in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(described(item) for item in args)
    if origin in (list, tuple):
        inner = [described(item) for item in args if item is not Ellipsis]
        return "a list of " + (" and ".join(inner) if origin is tuple and Ellipsis not in args else inner[0])
    if origin is dict:
        return f"a mapping of {described(args[0])} to {described(args[1])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word",
             type(None): "null", Path: "a path"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def _bounds(extras: tuple[Any, ...]) -> str:
    def first(*names: str) -> Any:
        return next((x for item in extras for n in names if (x := getattr(item, n, None)) is not None), None)

    low, high = first("ge", "gt"), first("le", "lt")
    return (f" from {low}" if low is not None else "") + (f" up to {high}" if high is not None else "")
