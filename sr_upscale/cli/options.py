"""Options that several commands share, and commands that take whole objects made of options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeGuard

import typer

from sr_upscale.cli.console import Console, Session
from sr_upscale.flags import RUNNING, Flag, flags, section_of
from sr_upscale.pipeline.request import SECTIONS, FileOptions, NetworkOptions, Request, request_of


def _note(context: typer.Context, parameter: typer.CallbackParam, wanted: bool) -> bool:
    """Notes an option in the session as soon as it is parsed, so that `app.run` knows it whatever fails later."""
    if wanted and isinstance(context.obj, Session):
        setattr(context.obj, str(parameter.name), True)
    return wanted


def _offline(context: typer.Context, wanted: bool) -> bool:
    if wanted and "SR_UPSCALE_OFFLINE" not in os.environ:
        os.environ["SR_UPSCALE_OFFLINE"] = "1"
        context.call_on_close(lambda: os.environ.pop("SR_UPSCALE_OFFLINE", None))
    return wanted


def completing(values: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Makes a function that completes an option's value in a shell, also behind a comma.

    What was typed stays as it is, as shells drop what does not begin with it: ``Real`` becomes ``Realesrgan-x4plus``.
    """

    def complete(incomplete: str) -> list[str]:
        last = incomplete.rpartition(",")[2]
        return [f"{incomplete}{word[len(last) :]}" for word in values() if word.lower().startswith(last.lower())]

    return complete


def _option(flag: Flag, default: Any = None) -> Any:
    return typer.Option(
        *flag.names,
        help=flag.help,
        rich_help_panel=flag.panel,
        metavar=flag.metavar,
        min=flag.lowest,
        max=flag.highest,
        autocompletion=flag.choices and completing(flag.choices),
        show_default=type(default) in (str, int),
    )


def option_of(section: type, name: str) -> Any:
    """Makes the option of a field, for commands that take it alone."""
    return next(_option(flag, each.default) for each, flag in flags(section) if each.name == name)


Model = Annotated[str | None, option_of(NetworkOptions, "model")]
MaxMemory = Annotated[str | None, option_of(NetworkOptions, "max_memory")]
MaxPixels = Annotated[str | None, option_of(FileOptions, "max_pixels")]
Device = Annotated[str, option_of(NetworkOptions, "device")]
Tta = Annotated[bool, option_of(NetworkOptions, "tta")]
Backend = Annotated[str, option_of(NetworkOptions, "backend")]
Fp32 = Annotated[bool, option_of(NetworkOptions, "fp32")]
Bf16 = Annotated[bool, option_of(NetworkOptions, "bf16")]
Fp16 = Annotated[bool, option_of(NetworkOptions, "fp16")]
Force = Annotated[bool, option_of(FileOptions, "force")]

_running = functools.partial(typer.Option, rich_help_panel=RUNNING)

Json = Annotated[
    bool,
    _running("--json", help="Print results and errors as JSON, one object per line.", is_eager=True, callback=_note),
]
Quiet = Annotated[bool, _running("--quiet", help="Print only warnings and errors.")]
Verbose = Annotated[bool, _running("-v", "--verbose", help="Print device, number type and tiles.")]
Offline = Annotated[bool, _running("--offline", help="Never use the network.", is_eager=True, callback=_offline)]
Debug = Annotated[bool, _running("--debug", help="Show the traceback of an error.", is_eager=True, callback=_note)]

_SHARED = {"as_json": Json, "quiet": Quiet, "offline": Offline, "debug": Debug}


def command(*, offline: bool = True) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Makes a command of a function that takes objects made of options.

    A parameter whose type is a dataclass of `flags`, or a `Request`, takes the options of every field, in their panels,
    where it stands. A `Console` takes ``--json`` and ``--quiet``. These come last in the help, with ``--offline`` and
    ``--debug``, which act by themselves.

    Args:
        offline: Whether the command may open connections, so that ``--offline`` makes sense.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        wanted = signature.parameters.values()
        shared = {name: (False, kind) for name, kind in _SHARED.items() if offline or name != "offline"}
        given: dict[str, tuple[Any, Any]] = {}
        for each in wanted:
            given |= _options_of(each.annotation) or {each.name: (each.default, each.annotation)}
        given = {name: each for name, each in given.items() if each[1] is not Console} | {
            name: each for name, each in shared.items() if name not in given
        }

        @functools.wraps(function)
        def run(**values: Any) -> int:
            return function(**{each.name: _built(each, values) for each in wanted})

        del run.__dict__["__wrapped__"]
        run.__dict__["__signature__"] = signature.replace(
            parameters=[
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                for name, (default, annotation) in given.items()
            ]
        )
        run.__annotations__ = {name: annotation for name, (_default, annotation) in given.items()} | {"return": int}
        return run

    return decorate


def _built(parameter: inspect.Parameter, values: dict[str, Any]) -> Any:
    """Builds the value of a parameter from the values of the command line."""
    kind = parameter.annotation
    if kind is Console:
        return Console(quiet=values["quiet"], as_json=values["as_json"])
    if kind is Request:
        return request_of(values)
    return section_of(kind, values) if _is_section(kind) else values[parameter.name]


def _is_section(kind: Any) -> TypeGuard[type]:
    """Says whether a type is a dataclass of `flags`."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _options_of(kind: Any) -> dict[str, tuple[Any, Any]]:
    """Gives the default and the annotation of every field of a type that is made of options, by its name."""
    sections: Iterable[type] = SECTIONS.values() if kind is Request else [kind] if _is_section(kind) else []
    return {
        each.name: _typer_type(section, each.name, each.default, flag)
        for section in sections
        for each, flag in flags(section)
    }


def _typer_type(section: type, name: str, default: Any, flag: Flag) -> tuple[Any, Any]:
    """Gives the default and the annotation with which typer takes a field."""
    kind = typing.get_type_hints(section)[name] if flag.parse is None else str | None
    if kind == tuple[str, ...]:
        kind, default = list[str] | None, None
    return default, Annotated[kind, _option(flag, default)]
