"""Options of commands, stated once as fields of dataclasses, and values of them out of a command line's words.

A field says how it is called on a command line, and how its word becomes a value. `cli.options.command` builds a
command's options from it. This module does not import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Section = TypeVar("Section")

SIZE, NETWORK, FILES, RUNNING = "Size", "Network and tiles", "Files", "Running"
RECIPE, DATA, PROTOCOL = "Recipe", "Data", "Protocol"
"""Panels of the help."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A field on the command line.

    Attributes:
        names: ``-q``, ``--quality`` and others.
        help: A sentence.
        panel: Where it stands in the help; None is among the options that have no panel.
        metavar: What its value is called.
        lowest, highest: Range of a number.
        parse: Makes the value of the word; without it the word is the value.
        choices: Lists words that a shell may complete; others may do as well.
    """

    names: tuple[str, ...]
    help: str
    panel: str | None = None
    metavar: str | None = None
    lowest: float | None = None
    highest: float | None = None
    parse: Callable[[str], Any] | None = None
    choices: Callable[[], Iterable[str]] | None = None


def option(default: Any, *names: str, help: str, panel: str | None = None, pixels: bool = False, **more: Any) -> Any:
    """Makes a field with its `Flag`.

    Args:
        default: Value where nothing is said.
        names, help, panel: See `Flag`.
        pixels: Whether the output's pixels depend on it.
        more: Further attributes of `Flag`.
    """
    return field(
        default=default, metadata={"flag": Flag(names=names, help=help, panel=panel, **more), "pixels": pixels}
    )


def flags(section: type) -> Iterator[tuple[dataclasses.Field[Any], Flag]]:
    """Yields the fields of a section, and how they are called."""
    for each in dataclasses.fields(section):
        yield each, each.metadata["flag"]


def section_of(section: type[Section], words: Mapping[str, Any]) -> Section:
    """Builds a section from what a command line said.

    Args:
        section: A dataclass whose fields have a `Flag`.
        words: By field name, each value as a word or already a value; None means that nothing was said.

    Raises:
        UsageError: A word that cannot be read, or two options that contradict each other.
    """
    values = {}
    for each, flag in flags(section):
        word = each.default if words.get(each.name) is None else words[each.name]
        word = tuple(word) if isinstance(word, list) else word
        values[each.name] = flag.parse(word) if flag.parse is not None and isinstance(word, str) else word
    return section(**values)
