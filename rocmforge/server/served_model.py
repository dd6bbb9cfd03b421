"""The text side of the model that is served: names, tokenizer, chat template.

The server process reads the file's metadata with read() and never maps the file: a file that is
truncated under a map would kill the process.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from rocmforge.clock import unix_s
from rocmforge.config import ServerConfig
from rocmforge.embedded import EMBEDDED_MODEL_PATH
from rocmforge.errors import InternalError, IoError, ModelLoading, ModelNotFound, RocmForgeError
from rocmforge.gguf.reader import GGUFFile
from rocmforge.observe.log import get_logger
from rocmforge.text.template_process import TemplateProcess
from rocmforge.text.template_sources import DEFAULT_NAME, read_templates
from rocmforge.text.tokenizer import Tokenizer

EMBEDDED_NAME = "embedded"
_log = get_logger(__name__)


class ServedModel:
    """One model. `load` must have ended before `tokenizer` and `templates` can be used.

    is_loaded: set when it has, well or not.
    """

    def __init__(self, path: str, config: ServerConfig) -> None:
        self.path = Path(path)
        self.name = config.served_model_name or self.path.stem
        self.created = int(unix_s())
        self.facts: dict[str, Any] = {}
        self.is_loaded = asyncio.Event()
        self._config = config
        self._tokenizer: Tokenizer | None = None
        self._templates: TemplateProcess | None = None
        self._error: RocmForgeError | None = None

    @property
    def names(self) -> set[str]:
        """What requests may call it."""
        names = {self.name, self.path.stem, self.path.name}
        return names | {EMBEDDED_NAME} if self.path == EMBEDDED_MODEL_PATH else names

    def check_name(self, name: str | None) -> None:
        """Raises ModelNotFound for the name of another model; none at all is ours."""
        if name and name not in self.names:
            raise ModelNotFound(
                f"the model {name[:200]!r} is not served here; use {self.name!r}", param="model"
            )

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises ModelLoading before `load`, or what made it fail."""
        if self._tokenizer is None:
            raise self._error or ModelLoading("the model's tokenizer is being read")
        return self._tokenizer

    @property
    def templates(self) -> TemplateProcess:
        """The chat templates; rendering fails with a clear error when the model has none."""
        if self._templates is None:
            raise self._error or ModelLoading("the model's chat template is being read")
        return self._templates

    @property
    def problem(self) -> RocmForgeError | None:
        """Why prompts cannot be read now: `load` has not ended, or has failed; None when they
        can."""
        if self._error is None and (self._tokenizer is None or self._templates is None):
            return ModelLoading("the model's tokenizer is being read")
        return self._error

    async def load(self) -> None:
        """Read the tokenizer and the templates; an error is kept for those who ask for them."""
        try:
            templates = await asyncio.to_thread(self._read)
            tokenizer = self.tokenizer
            _log.info("tokenizer_ready", n_vocab=tokenizer.n_vocab)
            self._templates = TemplateProcess(
                templates,
                bos_token=tokenizer.bos_token,
                eos_token=tokenizer.eos_token,
                timeout_s=self._config.template_timeout_s,
            )
            await self._templates.start()
        except RocmForgeError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  # a defect: told to every request, not at the end
            _log.exception("model_text_failed", error=repr(error))
            self._error = InternalError("the model's tokenizer cannot be read; the log says why")
        finally:
            self.is_loaded.set()

    async def close(self) -> None:
        """End the helper process of the templates."""
        if self._templates is not None:
            await self._templates.close()

    def _read(self) -> dict[str, str]:
        with GGUFFile.open(self.path, map_tensors=False) as file:
            metadata = file.metadata
            self.facts = {
                "architecture": metadata.str_("general.architecture", None),
                "title": metadata.str_("general.name", None),
                "n_parameters": sum(_n_values(info.shape) for info in file.tensors.values()),
                "file": self.path.name,
                "file_bytes": sum(path.stat().st_size for path in file.shard_paths),
            }
            templates = read_templates(metadata)
            if self._config.chat_template is not None:
                templates = {DEFAULT_NAME: _read_text(self._config.chat_template)}
            self.facts["has_chat_template"] = bool(templates)
            self._tokenizer = Tokenizer.from_metadata(metadata)
        return templates


def _n_values(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IoError(f"cannot read the chat template {path}: {error}") from error
