"""The `rocmforge` program: `serve run chat generate bench models inspect`.

Only the command that is asked for is imported: `serve` is ready the sooner.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from rocmforge.errors import ErrorCategory, RocmForgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

    from rocmforge.supervisor.launch import LaunchedEngine

EXIT_USER_ERROR = 2
EXIT_FAILURE = 1
COMMANDS: Final = ("serve", "run", "chat", "generate", "bench", "models", "inspect")


def command_line(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The program with these of its commands, each of `rocmforge.cli.<name>`."""
    import typer

    app = typer.Typer(
        name="rocmforge",
        help="Serve GGUF language models over an OpenAI-compatible API, and keep serving.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # Without a callback a single command would be the program itself, and its name an argument.
    app.callback()(lambda: None)
    for name in names:
        module = import_module(f"rocmforge.cli.{name}")
        app.command(name)(getattr(module, f"{name}_command"))
    return app


def main() -> None:
    """Run a command; an error is one line on stderr and an exit status (2: your input, 1: the
    rest)."""
    words = sys.argv[1:]
    engine = _launch_engine() if _will_serve(words) else None
    try:
        command_line(words[:1] if words and words[0] in COMMANDS else COMMANDS)(obj=engine)
    except RocmForgeError as error:
        sys.stderr.write(f"error: {error.message}\n")
        user = error.category() in (ErrorCategory.User, ErrorCategory.Model)
        sys.exit(EXIT_USER_ERROR if user else EXIT_FAILURE)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if engine is not None and not engine.is_adopted:
            engine.discard()


def _will_serve(words: Sequence[str]) -> bool:
    return words[:1] == ["serve"] and not {"-h", "--help"} & set(words)


def _launch_engine() -> LaunchedEngine | None:
    """The server's first engine, before anything else; None when it cannot be had: the server's
    own attempts will tell why."""
    from rocmforge.heap import pause_collection
    from rocmforge.supervisor.launch import launch
    from rocmforge.weights_store import create_store

    pause_collection()
    try:
        return launch(weights_fd=create_store())
    except OSError:
        return None


if __name__ == "__main__":
    main()
