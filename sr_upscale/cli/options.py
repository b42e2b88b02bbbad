"""Options that several commands share, and commands that take a whole `Request`."""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from sr_upscale.cli.session import Session
from sr_upscale.pipeline.request import RUNNING, SECTIONS, FileOptions, Flag, NetworkOptions, flags, request_of


def _debug(context: typer.Context, wanted: bool) -> bool:
    if wanted and isinstance(context.obj, Session):
        context.obj.debug = True
    return wanted


def _json(context: typer.Context, wanted: bool) -> bool:
    if wanted and isinstance(context.obj, Session):
        context.obj.as_json = True
    return wanted


def _offline(context: typer.Context, wanted: bool) -> bool:
    if wanted and "SR_UPSCALE_OFFLINE" not in os.environ:
        os.environ["SR_UPSCALE_OFFLINE"] = "1"
        context.call_on_close(lambda: os.environ.pop("SR_UPSCALE_OFFLINE", None))
    return wanted


def completing(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Makes what the shell asks for the rest of an option's word, also behind a comma."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in words() if word.startswith(last)]

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
        show_default=isinstance(default, str),
    )


def _one(section: type, name: str) -> Any:
    """Makes the option of a field, for commands that take it alone."""
    return next(_option(flag, each.default) for each, flag in flags(section) if each.name == name)


Model = Annotated[str | None, _one(NetworkOptions, "model")]
MaxMemory = Annotated[str | None, _one(NetworkOptions, "max_memory")]
MaxPixels = Annotated[str | None, _one(FileOptions, "max_pixels")]
Device = Annotated[str, _one(NetworkOptions, "device")]
Tta = Annotated[bool, _one(NetworkOptions, "tta")]
Backend = Annotated[str, _one(NetworkOptions, "backend")]
Fp32 = Annotated[bool, _one(NetworkOptions, "fp32")]
Bf16 = Annotated[bool, _one(NetworkOptions, "bf16")]
Fp16 = Annotated[bool, _one(NetworkOptions, "fp16")]
Force = Annotated[bool, _one(FileOptions, "force")]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Open no connection.", rich_help_panel=RUNNING, is_eager=True, callback=_offline),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="The result as JSON on stdout, an object a line; errors, too.",
        rich_help_panel=RUNNING,
        is_eager=True,
        callback=_json,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.", rich_help_panel=RUNNING)]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say device, type and tiles.", rich_help_panel=RUNNING)]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback of an error.", rich_help_panel=RUNNING, is_eager=True, callback=_debug
    ),
]


def takes_request(command: Callable[..., int]) -> Callable[..., int]:
    """Makes a command whose parameter ``request`` is built from the options of every field of a `Request`.

    These options stand behind the command's own in the help, in their panels. ``debug`` and ``offline``, which act by
    themselves, are added too.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.name != "request"]
    added = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for section in SECTIONS.values()
        for each, flag in flags(section)
        for default, annotation in [_typer_type(section, each.name, each.default, flag)]
    ]
    added += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("offline", Offline), ("debug", Debug))
    ]

    @functools.wraps(command)
    def run(**words: Any) -> int:
        mine = {each.name: words[each.name] for each in own}
        return command(**mine, request=request_of(words))

    del run.__dict__["__wrapped__"]
    run.__dict__["__signature__"] = signature.replace(parameters=[*own, *added])
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)} | {"return": int}
    return run


def _typer_type(section: type, name: str, default: Any, flag: Flag) -> tuple[Any, Any]:
    """Gives the default and the annotation with which typer takes a field."""
    kind = typing.get_type_hints(section)[name] if flag.parse is None else str | None
    if kind == tuple[str, ...]:
        kind, default = list[str] | None, None
    return default, Annotated[kind, _option(flag, default)]
