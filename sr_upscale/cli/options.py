"""Options that several commands share, and commands that take a whole `Request` and a `Console`."""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from sr_upscale.benchmark.names import KERNELS
from sr_upscale.cli.console import Console
from sr_upscale.cli.session import Session
from sr_upscale.pipeline.request import RUNNING, SECTIONS, FileOptions, Flag, NetworkOptions, flags, request_of
from sr_upscale.pretrained.registry import known_names


def _tell(context: typer.Context, parameter: typer.CallbackParam, wanted: bool) -> bool:
    """Has `app.run` know of an option as soon as it is parsed, whatever fails behind it."""
    if wanted and isinstance(context.obj, Session):
        setattr(context.obj, str(parameter.name), True)
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


def panel(title: str) -> Callable[..., Any]:
    """Makes what declares the options of a panel of the help: `typer.Option` with the title filled in."""
    return functools.partial(typer.Option, rich_help_panel=title)


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
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "-n",
        "--model",
        help="A model, a file, bicubic or lanczos; several by comma. Default: bicubic and ours.",
        autocompletion=completing(lambda: [*KERNELS, *known_names()]),
    ),
]
MaxMemory = Annotated[str | None, _one(NetworkOptions, "max_memory")]
MaxPixels = Annotated[str | None, _one(FileOptions, "max_pixels")]
Device = Annotated[str, _one(NetworkOptions, "device")]
Tta = Annotated[bool, _one(NetworkOptions, "tta")]
Backend = Annotated[str, _one(NetworkOptions, "backend")]
Fp32 = Annotated[bool, _one(NetworkOptions, "fp32")]
Bf16 = Annotated[bool, _one(NetworkOptions, "bf16")]
Fp16 = Annotated[bool, _one(NetworkOptions, "fp16")]
Force = Annotated[bool, _one(FileOptions, "force")]

_running = panel(RUNNING)

Json = Annotated[
    bool,
    _running(
        "--json", help="The result as JSON on stdout, an object a line; errors, too.", is_eager=True, callback=_tell
    ),
]
Quiet = Annotated[bool, _running("--quiet", help="Only warnings and errors.")]
Verbose = Annotated[bool, _running("-v", "--verbose", help="Say device, type and tiles.")]
Offline = Annotated[bool, _running("--offline", help="Open no connection.", is_eager=True, callback=_offline)]
Debug = Annotated[bool, _running("--debug", help="Show the traceback of an error.", is_eager=True, callback=_tell)]

_SHARED = {"as_json": Json, "quiet": Quiet, "offline": Offline, "debug": Debug}


def command(*, offline: bool = True) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Makes a command of a function whose parameters ``request`` and ``console`` are built from options.

    ``request`` takes the options of every field of a `Request`, in their panels, and ``console`` takes ``--json`` and
    ``--quiet``. These options stand behind the command's own in the help. ``--offline`` and ``--debug``, which act by
    themselves, are added too.

    Args:
        offline: Whether the command may open connections, so that ``--offline`` makes sense.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        built = {"request", "console"} & signature.parameters.keys()
        own = [each for name, each in signature.parameters.items() if name not in built]
        added = _request_options() if "request" in built else {}
        added |= {name: (False, kind) for name, kind in _SHARED.items() if offline or name != "offline"}
        parameters = [
            *own,
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                for name, (default, annotation) in added.items()
                if name not in signature.parameters
            ),
        ]

        @functools.wraps(function)
        def run(**words: Any) -> int:
            values = {each.name: words[each.name] for each in own}
            if "request" in built:
                values["request"] = request_of(words)
            if "console" in built:
                values["console"] = Console(quiet=words["quiet"], as_json=words["as_json"])
            return function(**values)

        del run.__dict__["__wrapped__"]
        run.__dict__["__signature__"] = signature.replace(parameters=parameters)
        run.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": int}
        return run

    return decorate


def _request_options() -> dict[str, tuple[Any, Any]]:
    """Gives the default and the annotation of every field of a `Request`, by its name."""
    return {
        each.name: _typer_type(section, each.name, each.default, flag)
        for section in SECTIONS.values()
        for each, flag in flags(section)
    }


def _typer_type(section: type, name: str, default: Any, flag: Flag) -> tuple[Any, Any]:
    """Gives the default and the annotation with which typer takes a field."""
    kind = typing.get_type_hints(section)[name] if flag.parse is None else str | None
    if kind == tuple[str, ...]:
        kind, default = list[str] | None, None
    return default, Annotated[kind, _option(flag, default)]
