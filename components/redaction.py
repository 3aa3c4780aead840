"""Secrets stay out of what is shown, logged or stored: addresses without logins, values by their names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = re.compile(r"passw|secret|token|credential|cookie|authori[sz]ation|api_?key|access_?key|private",
                   re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/\s\"'<>]*@")  # up to the last @ before the path: passwords may hold one
_QUERY = re.compile(r"([?&;][^=&\s]*(?:token|secret|signature|passw|credential|key)[^=&\s]*=)[^&\s\"']+",
                    re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer)\s+[\w.~+/=-]{6,}", re.IGNORECASE)


def shown(text: str) -> str:
    """`text` with the logins of its addresses, signed query values and bearer tokens taken out."""
    return _BEARER.sub(r"\1 ***", _QUERY.sub(r"\1***", _LOGIN.sub("", text)))


def has_login(address: str) -> bool:
    """Whether the address carries a user, with or without a password."""
    return _LOGIN.search(address) is not None


def clean(values: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names and text, without anything that looks like a secret."""
    return {name: shown(value if isinstance(value, str) else json.dumps(value, default=str))
            for name, value in leaves(values) if value is not None}


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every entry whose name is not that of a secret."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not _NAME.search(str(name)):
                yield from leaves(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value
