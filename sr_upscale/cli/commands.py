"""What the commands have in common: help in panels as plain text, and quick conversion of option values."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

EXAMPLES = {
    "upscale": "sr-upscale photo.jpg -o out.png",
    "batch": "sr-upscale batch photos -o photos_x4",
    "train": "sr-upscale train -c psnr-x4 --data photos",
    "degrade": "sr-upscale degrade photo.jpg -c photo-x4",
    "export": "sr-upscale export -n photo-x4",
    "benchmark": "sr-upscale benchmark --dataset set5 --model bicubic,psnr",
    "compare": "sr-upscale compare photo.jpg --model photo,anime",
    "serve": "sr-upscale serve -o results",
}
"""A command line of each command, at the end of its help and of its usage errors."""

LAST = "Running"
"""Panel of what all commands have, below what is their own."""


NAMES = ("inputs", "input_option", "folder", "output", "model")
"""Parameters that name something. An empty one, of a shell variable that is not set, would be the working folder."""


class PanelCommand(TyperCommand):
    """A command whose help groups its options by ``rich_help_panel``, in the order of their first option but `LAST`."""

    def get_params(self, ctx: Any) -> Any:
        return read_plainly(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                plain = "Arguments" if parameter.param_type_name == "argument" else "Options"
                names, text = record
                panel = panels.setdefault(getattr(parameter, "rich_help_panel", None) or plain, [])
                panel.append((names.replace("<list[str]>", "<str>"), text))  # usage and text say what may be repeated
        for title, records in sorted(panels.items(), key=lambda panel: panel[0] == LAST):
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.name in EXAMPLES:
            formatter.write(f"\nExample: {EXAMPLES[self.name]}\n")


class PlainGroup(TyperGroup):
    """Several commands under one name, parsed as a `PanelCommand` is; ``help`` before other arguments is ``--help``."""

    def get_params(self, ctx: Any) -> Any:
        return read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)


def command_of(name: str) -> Any:
    """Imports a command, as the object that typer runs."""
    module = import_module(f"sr_upscale.cli.{name}")
    home = getattr(module, "app", None)
    if home is None:
        home = typer.Typer(add_completion=False, rich_markup_mode=None)
        home.command(name, cls=PanelCommand)(getattr(module, name))
    return typer.main.get_command(home)


def read_plainly(parameters: Sequence[Any]) -> Sequence[Any]:
    """Lets `_Reader` convert the values of parameters that are texts, numbers or switches.

    Typer would import pydantic and make a validator for each of them, also for what is not given: a third of the time
    of a short command.
    """
    for parameter in parameters:
        if _kind(parameter) in (bool, str, int, float, list[str]):
            parameter.get_runtime_param = _Reader
    return parameters


class _Reader:
    """Takes the place of what typer makes of an annotation with pydantic."""

    def coerce(self, value: Any, param: Any, ctx: typer.Context) -> Any:
        """Converts the value of a parameter.

        Args:
            value: From the command line, or a default; None without either.
            param: Whose value it is: text, a list of texts, a switch, or a number with or without bounds.
            ctx: Of the command.

        Raises:
            typer.BadParameter: It is no such number.
        """
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if (kind := _kind(param)) not in (int, float):
            if param.name in NAMES and "" in (value if isinstance(value, list | tuple) else [value]):
                raise typer.BadParameter("expected a name, got nothing", ctx=ctx, param=param)
            return value
        bounds = param.type_descriptor.parameter_info
        number = _number(kind, value)
        if number is None or _outside(number, bounds.min, bounds.max):
            raise typer.BadParameter(f"expected {_expected(kind, bounds.min, bounds.max)}", ctx=ctx, param=param)
        return number


def _kind(parameter: Any) -> Any:
    return parameter.type_descriptor.annotation


def _number(kind: type, word: Any) -> Any:
    try:
        return kind(word)
    except ValueError:
        return None


def _outside(number: float, lowest: float | None, highest: float | None) -> bool:
    """Says whether a number is not within bounds; what is no number (nan) is within none."""
    return not ((lowest is None or number >= lowest) and (highest is None or number <= highest))


def _expected(kind: type, lowest: float | None, highest: float | None) -> str:
    words = "a whole number" if kind is int else "a number"
    if lowest is not None and highest is not None:
        return f"{words} from {lowest:g} to {highest:g}"
    if lowest is not None:
        return f"{words} of {lowest:g} or more"
    return words if highest is None else f"{words} of {highest:g} or less"
