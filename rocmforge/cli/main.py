"""The `rocmforge` program: `serve run chat generate bench models inspect`."""

from __future__ import annotations

import sys

import typer

from rocmforge.cli import bench, chat, generate, inspect, models, run, serve
from rocmforge.errors import ErrorCategory, RocmForgeError

EXIT_USER_ERROR = 2
EXIT_FAILURE = 1

app = typer.Typer(
    name="rocmforge",
    help="Serve GGUF language models over an OpenAI-compatible API, and keep serving.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, run, chat, generate, bench, models, inspect):
    name = command.__name__.rpartition(".")[2]
    app.command(name)(getattr(command, f"{name}_command"))


def main() -> None:
    """Run a command; an error is one line on stderr and an exit status (2: your input, 1: the
    rest)."""
    try:
        app()
    except RocmForgeError as error:
        sys.stderr.write(f"error: {error.message}\n")
        user = error.category() in (ErrorCategory.User, ErrorCategory.Model)
        sys.exit(EXIT_USER_ERROR if user else EXIT_FAILURE)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
