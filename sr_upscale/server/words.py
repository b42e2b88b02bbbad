"""What a client may ask for: the words of a query, and the request that they make."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened, shown
from sr_upscale.pipeline.request import SECTIONS, Request, request_of
from sr_upscale.pretrained.inventory import model_rows
from sr_upscale.pretrained.registry import families

OPTIONS = (
    "scale",
    "width",
    "height",
    "size",
    "fit",
    "model",
    "tta",
    "format",
    "quality",
    "compression",
    "strip_metadata",
    "background",
    "frame",
    "allow_truncated",
)
"""Fields of a `Request` that a client may set.

The others are for whoever starts the server: device, memory, limits, and the dial, each place of which would leave a
file of weights in the cache.
"""

LONGEST = 100
"""Most characters of a word."""


def plain_name(name: str) -> str:
    """Returns the name of a picture, which leads into no folder.

    Raises:
        UsageError: It could be a path, is hidden, or cannot be shown.
    """
    if not name or name[0] == "." or any(char in "/\\:" or not char.isprintable() for char in name):
        raise UsageError(f"name is {shown(shortened(name))!r}; expected the name of a picture, without a folder")
    return name


def models(own: str) -> list[str]:
    """Lists the models that a client may choose: what the server was started with, and what needs no download."""
    installed = [row["name"] for row in model_rows() if row["installed"]]
    return list(dict.fromkeys([own, *families(), *installed]))


def request_from(query: dict[str, str], base: dict[str, Any]) -> Request:
    """Makes a request of the words of a query.

    Args:
        query: Words by field name.
        base: What the server was started with, also by field name.

    Raises:
        UsageError: An unknown name, a word that cannot be read, a model that is not offered, or a contradiction.
    """
    kinds = {name: kind for section in SECTIONS.values() for name, kind in typing.get_type_hints(section).items()}
    for name in query:
        if name not in OPTIONS:
            raise UsageError(f"no option {shown(shortened(name))!r}; expected {', '.join(OPTIONS)}")
    words = {name: _value(name, word, typing.get_args(kinds[name]) or (kinds[name],)) for name, word in query.items()}
    if (model := words.get("model")) is not None and model not in (offered := models(base["model"])):  # and no path
        raise UsageError(f"model is {shown(model)!r}; expected one of {', '.join(offered)}")
    return request_of(base | words)


def flag(name: str, word: str) -> bool:
    """Reads ``true`` or ``false``, also ``1`` or ``0``.

    Raises:
        UsageError: It is neither.
    """
    if word not in ("true", "1", "false", "0"):
        raise UsageError(f"{name} is {shown(shortened(word))!r}; expected true or false")
    return word in ("true", "1")


def _value(name: str, word: str, kinds: Iterable[Any]) -> Any:
    """Reads a word as the type of its field; one that has a parser, and text, stays a word."""
    if len(word) > LONGEST:
        raise UsageError(f"{name} is {shown(shortened(word))!r}; expected at most {LONGEST} characters")
    if bool in kinds:
        return flag(name, word)
    kind = next((each for each in (int, float) if each in kinds), None)
    try:
        return word if kind is None else kind(word)
    except ValueError as error:
        raise UsageError(f"{name} is {shown(shortened(word))!r}; expected a number") from error
