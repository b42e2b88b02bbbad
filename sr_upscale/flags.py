"""Options of commands, stated once as fields of dataclasses, and their values parsed from a command line.

A field states its option's names, and how its text is parsed. `cli.options.command` builds a
command's options from it. This module does not import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sr_upscale.errors import UsageError

Section = TypeVar("Section")

SIZE, NETWORK, FILES, VIDEO, RUNNING = "Size", "Network and tiles", "Files", "Video", "Running"
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
        parse: Parses the value from text; without it the text is the value.
        choices: Lists values that a shell completes; others may be allowed, too.
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
        default: Value without the option.
        names, help, panel: See `Flag`.
        pixels: Whether the output's pixels depend on it.
        more: Further attributes of `Flag`.
    """
    return field(
        default=default, metadata={"flag": Flag(names=names, help=help, panel=panel, **more), "pixels": pixels}
    )


def flags(section: type) -> Iterator[tuple[dataclasses.Field[Any], Flag]]:
    """Yields the fields of a section with their flags."""
    for each in dataclasses.fields(section):
        yield each, each.metadata["flag"]


def section_of(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Builds a section from the values of a command line.

    Args:
        section: A dataclass whose fields have a `Flag`.
        values: By field name, as text or already parsed; None takes the default.

    Raises:
        UsageError: A value cannot be parsed, or two options contradict each other.
    """
    parsed = {}
    for each, flag in flags(section):
        value = each.default if values.get(each.name) is None else values[each.name]
        if isinstance(value, list):
            if not isinstance(each.default, tuple):
                raise UsageError(f"{each.name} is a list; expected one value")
            value = tuple(value)
        parsed[each.name] = flag.parse(value) if flag.parse is not None and isinstance(value, str) else value
    return section(**parsed)
