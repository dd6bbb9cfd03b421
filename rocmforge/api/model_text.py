"""The text side of a model file: its tokenizer and its chat templates, built when first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from rocmforge.errors import InvalidRequest, UnsupportedModelFormat
from rocmforge.text.chat_template import ChatTemplate
from rocmforge.text.detokenizer import Detokenizer
from rocmforge.text.template_sources import read_templates, template_name
from rocmforge.text.tokenizer import Tokenizer

_MODEL_KEY = "tokenizer.ggml.model"
# How converters write that a file comes without a tokenizer.
_NO_TOKENIZER = (None, "none", "no_vocab")


class ModelText:
    """Text to ids and back. `metadata`: of the model file."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata
        self._compiled: dict[str, ChatTemplate] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's tokenizer.

        Raises InvalidRequest when it has none, InvalidModelFile when it is damaged,
        UnsupportedModelFormat when its kind is not supported.
        """
        if self._metadata.get(_MODEL_KEY) in _NO_TOKENIZER:
            raise InvalidRequest(
                "this model file has no tokenizer: give token ids in place of text, and no stop "
                "strings"
            )
        return Tokenizer.from_metadata(self._metadata)

    @cached_property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer that is supported. Raises InvalidModelFile when it is
        damaged.
        """
        if self._metadata.get(_MODEL_KEY) in _NO_TOKENIZER:
            return False
        try:
            return self.tokenizer.n_vocab > 0
        except UnsupportedModelFormat:
            return False

    @cached_property
    def templates(self) -> dict[str, str]:
        """The file's chat templates by name; may be empty. Raises InvalidModelFile."""
        return read_templates(self._metadata)

    def detokenizer(self, stop: Sequence[str], *, continuation: bool) -> Detokenizer | None:
        """For one choice; None when there is no tokenizer. Raises InvalidRequest when stop strings
        need one.
        """
        if not self.has_tokenizer and not stop:
            return None
        return Detokenizer(self.tokenizer, stop, continuation=continuation)

    def chat_prompt(
        self,
        messages: Sequence[object],
        *,
        tools: Sequence[object] | None,
        variables: Mapping[str, Any],
    ) -> str:
        """The messages as the chat template writes them, ready for the answer.

        Raises InvalidRequest when there is no template or it refuses the messages.
        """
        tokenizer = self.tokenizer
        if not self.templates:
            raise InvalidRequest(
                "this model has no chat template: continue a text instead (generate)",
                param="messages",
            )
        name = template_name(self.templates, has_tools=bool(tools))
        if name not in self._compiled:
            self._compiled[name] = ChatTemplate(
                self.templates[name],
                bos_token=tokenizer.bos_token,
                eos_token=tokenizer.eos_token,
            )
        return self._compiled[name].render(messages, tools=tools, **variables)
