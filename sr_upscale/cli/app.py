"""``sr-upscale``: the commands, the default command, and the one place where errors become exit codes.

A command's file is imported when the command is chosen, and imports torch when it runs.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import signal
import sys
import tomllib
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import platformdirs
import typer

from sr_upscale import __version__
from sr_upscale.cli import COMMANDS
from sr_upscale.cli.commands import EXAMPLES, PlainGroup, command_of
from sr_upscale.cli.console import Console, Session, discard_output, print_error, standard_output
from sr_upscale.errors import READER_GONE, SIGNALLED, OutOfMemoryError, SrUpscaleError, UsageError
from sr_upscale.formatting import shortened, shown
from sr_upscale.interrupts import STOP, Insistence, Stopped, ending_of, ending_signals

_CLEANING = "--denoise 0..1 sets how much noise is removed, and --before 1x-denoise-realplksr-otf cleans first"
_FACES = "faces are not repaired one by one here; the default model cleans the whole picture"
_MODELS = "a folder of models is not needed; -n takes a name of `sr-upscale models`, or a file"
_THREADS = "-j LOAD:PROC:SAVE sets the threads of a folder"

FOREIGN = {
    "--noise": _CLEANING,
    "--noise-level": _CLEANING,
    "--face-enhance": _FACES,
    "-m": _MODELS,
    "--model-dir": _MODELS,
    "--alpha-upsampler": "transparency is always kept",
    "--pre-pad": "edges are mirrored as far as the network sees",
    "--list-models": "`sr-upscale models` lists them",
    "--seamless": "--wrap x|y|both makes seamless textures",
    "--threads": _THREADS,
    "--num-process-per-gpu": _THREADS,
    "-r": "--size WxH, --width or --height set the size",
    "--resize": "--size WxH, --width or --height set the size",
}
"""Options of other programs that people type out of habit, and what to use here; by name, with dashes."""


class _ReaderGone(Exception):
    """Nobody reads standard output any more. It is no `OSError`: typer would make exit code 1 of that."""


@contextlib.contextmanager
def _noticing_its_reader() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderGone from error


class Commands(PlainGroup):
    """Commands with a default: ``sr-upscale photo.jpg`` means ``sr-upscale upscale photo.jpg``."""

    default_command = "upscale"

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return command_of(cmd_name) if cmd_name in COMMANDS else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = ["--version"] if args == ["version"] else args
        own = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        if args and args[0] not in (*COMMANDS, "help") and args[0].split("=")[0] not in own | {"--help", "-h"}:
            if not ctx.resilient_parsing:
                self._ask_back(args[0])
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        found = super().resolve_command(ctx, args)
        if not ctx.resilient_parsing and found[1] is not None and found[0] != "config":
            ctx.default_map = {found[0]: defaults_of(found[1])}
        return found

    def make_context(self, *args: Any, **more: Any) -> Any:
        with _noticing_its_reader():  # --help and --version write here
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        with _noticing_its_reader():
            return super().invoke(ctx)

    def _ask_back(self, word: str) -> None:
        """Refuses a mistyped command, which would be taken for a picture."""
        if word.startswith("-") or os.path.splitext(word)[1] or os.path.lexists(word):
            return
        near = difflib.get_close_matches(word.lower(), COMMANDS, n=1, cutoff=0.7)
        if not near and word.isalpha() and word in command_of("models").commands:
            near = [f"models {word}"]
        if near:
            raise UsageError(f"{shown(word)!r} is neither a command nor a file; did you mean `sr-upscale {near[0]}`?")


def config_file() -> Path:
    """Returns the file of defaults: ``SR_UPSCALE_CONFIG``, else the system's place for settings."""
    return Path(os.environ.get("SR_UPSCALE_CONFIG") or platformdirs.user_config_path("sr-upscale") / "config.toml")


def defaults_of(command: Any) -> dict[str, Any]:
    """Returns the defaults of a command that stand in the file, by the names of its parameters.

    Args:
        command: As typer runs it.

    Raises:
        UsageError: The file cannot be read, or a name in it is no option of the command.
    """
    options = {
        name.removeprefix("--"): parameter.name
        for parameter in getattr(command, "params", ())
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and parameter.param_type_name == "option"
    }
    table = tables_of_file().get(command.name, {})
    for key, value in table.items():
        if key not in options:
            raise UsageError(_misspelt(f"{command.name}.{key}", key, options))
        if not (isinstance(value, str | int | float) or (isinstance(value, list) and {*map(type, value)} <= {str})):
            place = f"{shown(config_file())}: {command.name}.{key}"
            raise UsageError(
                f"{place} is {shortened(repr(value))}; expected a text, a number or true, or several texts"
            )
    return {options[key]: value for key, value in table.items()}


def tables_of_file() -> Mapping[str, Mapping[str, Any]]:
    """Reads the file, as tables of options by the name of the command; empty where there is none.

    Raises:
        UsageError: It cannot be read, or a table is named like no command.
    """
    path = config_file()
    try:
        tables = (
            tomllib.loads(path.read_text(encoding="utf-8"))
            if path.exists() or "SR_UPSCALE_CONFIG" in os.environ
            else {}
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{shown(path)}: cannot be read ({error}); expected TOML with a table for each command"
        ) from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{shown(path)}: {shortened(name)} stands in no table; write [upscale] above it")
        if name not in COMMANDS:
            raise UsageError(_misspelt(name, name, COMMANDS))
    return tables


def _misspelt(place: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], n=1)
    kind = "option" if "." in place else "command"
    hint = f"did you mean {near[0]}?" if near else "see `sr-upscale --help`"
    return f"{shown(config_file())}: {shortened(place)} is no {kind}; {hint}"


app = typer.Typer(
    name="sr-upscale",
    cls=Commands,
    help=(
        "Enlarge pictures with a neural network.\n\n"
        "sr-upscale photo.jpg -o out.png: `upscale` may be left out; its --help lists all options. A file that is "
        "named like a command is written ./batch."
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"sr-upscale {__version__}\n")
        raise typer.Exit


def _list_devices(wanted: bool) -> None:
    if wanted:
        from sr_upscale.device import list_devices

        sys.stdout.write("\n".join([*list_devices(), ""]))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", callback=_list_devices, is_eager=True, help="List what -g can name.")
    ] = False,
) -> None:
    pass


def _advice(unknown: str, words: Sequence[str]) -> str | None:
    """Returns what to use here instead of an option of another program; None for unknown options.

    Args:
        unknown: The option as it was parsed: ``-d`` of ``-dn``.
        words: The command line.
    """
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name in FOREIGN and name.startswith(unknown):
            return f"no option {name}: {FOREIGN[name]}"
    return None


def _refused_value(error: typer.TyperException, argv: Sequence[str]) -> str | None:
    """Formats an error about the value of an option, with the value. None for other errors."""
    names, message = getattr(getattr(error, "param", None), "opts", ()), getattr(error, "message", "")
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") in names:
            return f"{name} is {value if equals else following!r}; {message[:1].lower()}{message[1:]}"
    return None


def _of_file(message: str, argv: Sequence[str]) -> str:
    """Returns an error with the file of defaults, if the option and the value of which it speaks stand there."""
    called = argv[0] if argv and argv[0] in COMMANDS else Commands.default_command
    with contextlib.suppress(UsageError):
        for key, value in tables_of_file().get(called, {}).items():
            named, word = re.escape(key), re.escape(str(value))
            if re.search(rf"\b{named} is (a list|'?{word}\b)|^Invalid value for .*--{named}'", message):
                return f"{message} (set in {shown(config_file())})"
    return message


def _usage_message(error: typer.TyperException, argv: Sequence[str]) -> str:
    """Formats an error of the parser, with the help and an example of the command that was called."""
    if advice := _advice(str(getattr(error, "option_name", "-?")), argv):
        return advice
    text = _refused_value(error, argv) or error.format_message()
    if found := re.fullmatch(r"Option '(.+)' requires an argument\.", text):
        text = f"{found[1]} needs a value"
    context = getattr(error, "ctx", None)
    called = argv[0] if argv and argv[0] in COMMANDS else Commands.default_command
    command = f"sr-upscale {called}" if context is None else context.command_path
    example = EXAMPLES.get(command.removeprefix("sr-upscale").strip())
    text = f"{text.rstrip('.')}{' See' if text.endswith('?') else '; see'} `{command} --help`".removeprefix("; ")
    return f"{text}, or try `{example}`" if example else text


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command line and ends the process with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: Windows has encodings that lack most names
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs a command line.

    Returns:
        Its exit code, with one line on stderr if that is not 0.
    """
    session = Session()
    stopping = Insistence()

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopping.first():
            STOP.request(ending_of(number))
        elif stopping.insists():  # it takes too long
            print_error("sr-upscale: killed; unfinished files named .sr-* may remain")
            os._exit(SIGNALLED + ending_of(number))

    def failed(code: int, message: str, kind: str) -> int:
        if session.debug:
            traceback.print_exc()
        print_error(f"sr-upscale: {message}")
        if session.as_json or (kind == "UsageError" and "--json" in argv):
            with contextlib.suppress(BrokenPipeError):  # the exit code says it as well
                Console(as_json=True).event("error", {"code": code, "kind": kind, "message": message})
        return code

    before = {number: signal.signal(number, stop) for number in ending_signals()}
    try:
        code = app(args=list(argv) or ["--help"], prog_name="sr-upscale", standalone_mode=False, obj=session)
        with _noticing_its_reader(), standard_output():
            sys.stdout.flush()
        STOP.check()  # a library may have swallowed it
        return UsageError.exit_code if not argv else code if isinstance(code, int) else 0
    except typer.TyperException as error:
        return failed(error.exit_code, _of_file(_usage_message(error, argv), argv), "UsageError")
    except UsageError as error:
        return failed(error.exit_code, _of_file(str(error), argv), type(error).__name__)
    except SrUpscaleError as error:
        return failed(error.exit_code, str(error), type(error).__name__)
    except Stopped as stopped:
        return failed(SIGNALLED + stopped.number, stopped.message, "Stopped")
    except MemoryError:
        text = "out of memory; close other programs, use a smaller scale or --tile 128"
        return failed(OutOfMemoryError.exit_code, text, "OutOfMemoryError")
    except _ReaderGone:
        discard_output()
        return READER_GONE
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}; --debug shows where: please report it"
        return failed(SrUpscaleError.exit_code, text, type(error).__name__)
    finally:
        STOP.reset()
        for number, handler in before.items():
            signal.signal(number, handler)
