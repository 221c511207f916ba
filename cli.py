"""The command line: all commands under their names, and how each of them ends."""

import sys

try:
    import atexit
    import errno
    import hashlib
    import os
    import traceback
    from collections.abc import Callable
    from contextlib import suppress
    from io import TextIOWrapper
    from pathlib import Path
    from typing import Annotated, Any, NoReturn

    import typer
    from typer.core import TyperCommand

    from model.commands import demo, judge, train, use
    from pipeline.commands import folder, make, share
    from pipeline.disk import is_out_of_space
    from pipeline.errors import UserError
    from pipeline.words import harmless
except KeyboardInterrupt:  # these take a tenth of a second, and no command has begun
    sys.exit(130)

app = typer.Typer(
    name="nurie",
    help="From Danbooru metadata to a model that colours sketches after a reference picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_STOPPED = "stopped; the same command begins anew."
_STOPPED_GOING_ON = dict.fromkeys(
    ("fetch", "prepare", "repair", "push", "pull", "takedown", "demo"),
    "stopped; the same command goes on from here.",
) | {
    "train": "stopped; with --resume the same command goes on from the last checkpoint, or begins "
    "anew where there is none.",
}
"""What to say after Ctrl-C, by the command, where the next one has something to go on from."""


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Set what all commands share."""
    if debug:
        os.environ["NURIE_DEBUG"] = "1"


class _Command(TyperCommand):
    """Explains what a shell makes of `--sketch *.png`, and refuses numbers that no file can hold.

    Those of JSON and Parquet have 64 bits. Its help shows arguments as it shows options, by what
    they take; Typer would add Python's types, and braces.
    """

    allow_extra_args = True

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [param for param in self.params if param.param_type_name == "argument"]
        names = [p.metavar if p.required else f"[{p.metavar}]" for p in arguments]
        return ["[OPTIONS]", *map(str, names)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        found: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for param in self.get_params(ctx):
            kind = param.param_type_name
            if record := param.get_help_record(ctx):
                name, text = record
                found[kind].append((str(param.metavar) if kind == "argument" else name, text))
        for kind, records in found.items():
            if records:
                with formatter.section(f"{kind.title()}s"):
                    formatter.write_dl(records)

    def invoke(self, ctx: Any) -> Any:
        if ctx.args:
            self._refuse_extra(ctx)
        for name, value in ctx.params.items():
            if isinstance(value, int) and value >= 2**63:
                raise UserError(f"--{name.replace('_', '-')} {value}: is too large a number.")
        from pipeline.shards.arrow import leave_pandas_out

        leave_pandas_out()  # pyarrow would import it at its first array, deaf to Ctrl-C meanwhile
        return super().invoke(ctx)

    def _refuse_extra(self, ctx: Any) -> None:
        extra = f"Got unexpected extra argument '{harmless(ctx.args[0])}'"
        if len(ctx.args) > 1:
            extra = f"{extra} and {len(ctx.args) - 1} more"
        given = [
            option.opts[0]
            for option in self.params
            if getattr(option, "multiple", False)
            and ctx.get_parameter_source(option.name).name == "COMMANDLINE"
        ]
        if given:
            names = " and ".join(given)
            extra = (
                f"{extra}. Repeat {names} before each value, or give a folder where one is taken."
            )
        ctx.fail(extra)


_COMMANDS: dict[str, Callable[..., None]] = {
    "fetch": make.fetch,
    "prepare": make.prepare,
    "demo": demo.demo,
    "train": train.train,
    "eval": judge.evaluate,
    "colorize": use.colorize,
    "app": use.show_app,
    "export": use.export,
    "status": folder.status,
    "verify": folder.verify,
    "repair": folder.repair,
    "report": folder.report,
    "lock": folder.lock,
    "runs": judge.runs,
    "push": share.push,
    "pull": share.pull,
    "takedown": share.takedown,
}
for name, command in _COMMANDS.items():
    app.command(name, cls=_Command)(command)


def main() -> None:
    """Run the command line; turn errors into sentences and exit codes."""
    if isinstance(sys.stdout, TextIOWrapper):  # names of files need be no text that it knows
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _run()
    except (UserError, OSError) as error:
        if not (sentence := _sentence(error)):
            raise
        if os.environ.get("NURIE_DEBUG"):
            print(harmless(traceback.format_exc()), file=sys.stderr)
        _leave(f"error: {sentence}", 2)
    except KeyboardInterrupt:
        _leave(_stopped(), 130)
    except SystemExit as end:
        if end.code == 130:  # Typer's way to pass Ctrl-C on
            _leave(_stopped(), 130)
        raise


def _sentence(error: UserError | OSError) -> str:
    """Return what to say of an error, "" where it names nothing that its user could look at."""
    if isinstance(error, UserError):
        return str(error)
    if error.filename:
        return f"{error.filename}: {error.strerror}."
    is_plain = isinstance(error, PermissionError | FileNotFoundError) or is_out_of_space(error)
    sentence = f"{error.strerror or error}." if is_plain else ""
    if "temporary directory" in sentence:  # Python's words, which name those that it has tried
        sentence = f"{sentence} Let TMPDIR name a folder that can be written and has room."
    return sentence


def _run() -> None:
    """Run the command, and see to it that all that it prints is taken.

    Raises:
        UserError: where standard output takes no more, as on a full disk.
    """
    try:
        app()
    except SystemExit:
        _flush()
        raise
    except OSError as error:
        if error.filename is None:  # some write failed; where it was a print, so does another one
            _flush("\n")
        raise


def _flush(text: str = "") -> None:
    try:
        print(end=text, flush=True)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise UserError(f"standard output: cannot be written: {error.strerror}.") from error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # its reader has seen enough


def _stopped() -> str:
    """Return what to say after Ctrl-C; the first plain word is the command."""
    words = (word for word in sys.argv[1:] if not word.startswith("-"))
    return _STOPPED_GOING_ON.get(next(words, ""), _STOPPED)


def _leave(message: str, code: int) -> NoReturn:
    """Print a sentence and end at once, although threads may still wait for a server's answer.

    An ordinary exit would wait for these, for as long as their time-outs allow. Of the processes
    that torchrun started one speaks and fails for all that end alike: of each that fails torchrun
    prints a block.
    """
    message = harmless(message)
    if _is_first_to_say(message):
        with suppress(OSError):  # a full disk, say: the code tells it all the same
            typer.echo(message, err=True)
    else:
        code = 0
    with suppress(UserError):
        _flush()
    atexit._run_exitfuncs()
    os._exit(code)


def _is_first_to_say(message: str) -> bool:
    """Return whether none of the processes that torchrun started with this one has said so.

    Each has a folder for an error file of its own, called by its number on the machine; these lie
    in one that is new for each start.
    """
    own = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).parent
    if own.name != os.environ.get("LOCAL_RANK"):
        return True
    try:
        (own.parent / hashlib.sha256(message.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # rather twice than never
        return True
    return True


if __name__ == "__main__":
    main()
