"""`rocmforge serve`: the HTTP server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rocmforge.cli import options as o

if TYPE_CHECKING:
    from rocmforge.supervisor.launch import LaunchedEngine


def serve_command(
    context: typer.Context,
    model: o.ModelArgument = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port; 0 picks one.")] = None,
    device: o.DeviceOption = None,
    isa: o.IsaOption = None,
    threads: o.ThreadsOption = None,
    ctx: o.ContextOption = None,
    kv_type: o.KvTypeOption = None,
    kv_bytes: Annotated[int | None, typer.Option(help="Memory for the KV cache.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Sequences run at once.")] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="Ask clients for this key (repeatable).")
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="The name that /v1/models shows.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja file in place of the model's template.")
    ] = None,
    shared_weights: Annotated[
        bool | None,
        typer.Option(
            "--shared-weights/--no-shared-weights",
            help="Keep the weights in memory while the engine is replaced.",
        ),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, human or json.")] = None,
    config: o.ConfigOption = None,
) -> None:
    """Serve a model over HTTP until Ctrl-C or SIGTERM, which let running answers finish."""
    settings = o.settings_of(
        config,
        engine={
            "device": device,
            "isa": isa,
            "n_threads": threads,
            "max_sequence_length": ctx,
            "cache": {"kv_type": kv_type, "kv_bytes": kv_bytes},
            "scheduler": {"max_batch_size": max_batch_size},
        },
        server={
            "host": host,
            "port": port,
            "api_keys": api_key or None,
            "served_model_name": served_model_name,
            "chat_template": chat_template,
            "supervisor": {"shared_weights": shared_weights},
        },
        log={"level": log_level, "format": log_format},
    )
    engine_config = o.engine_config(o.model_path(model, settings), settings)
    launched: LaunchedEngine | None = context.obj
    if launched is not None:
        # It can read the model while this process imports its own modules.
        shares_weights = settings.server.supervisor.shared_weights
        launched.tell(engine_config, settings.log, shares_weights=shares_weights)
    from rocmforge.observe.log import configure_logging
    from rocmforge.server.run import serve

    configure_logging(settings.log)
    raise typer.Exit(serve(engine_config, settings.server, settings.log, launched=launched))
