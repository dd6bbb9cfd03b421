"""`load` and `Model`: the Python API."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rocmforge.api.generation import GenerationResult
from rocmforge.api.logits import LogitsProgram
from rocmforge.api.model_text import ModelText
from rocmforge.api.session import EngineSession
from rocmforge.api.stream import GenerationStream, run_batch
from rocmforge.clock import monotonic_s
from rocmforge.config import EngineConfig, load_settings
from rocmforge.engine.engine import Engine
from rocmforge.engine.intake import check_request
from rocmforge.engine.runner import Runner
from rocmforge.engine.start import load_runner, warm_up
from rocmforge.errors import ContextLengthExceeded, InvalidRequest, RocmForgeError
from rocmforge.gguf.reader import GGUFFile
from rocmforge.model_source import resolve_model
from rocmforge.observe.log import log_to_host
from rocmforge.request import Request, SamplingParams
from rocmforge.text.tokenizer import Tokenizer
from rocmforge.wire.protocol import EngineFacts

Prompt = str | Sequence[int]
"""Text, in which the texts of special tokens count as these tokens; or token ids as they are."""


def load(
    path: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    vocab_only: bool = False,
    *,
    n_ctx: int | None = None,
) -> Model:
    """Load a model into this process; a context manager.

    path: a .gguf file, an alias of the configuration file, `hf:owner/repo[:file]`, or None for the
    configured model, else the embedded one. device, threads, n_ctx (positions per sequence): left
    alone, what the configuration file and the environment say. vocab_only: read the tokenizer and
    the chat template only, of a file that may have no weights.

    Raises a RocmForgeError: ModelLoadFailed, IoError, InvalidModelFile, UnsupportedModelFormat,
    TensorNotFound, InvalidTensorShape, InvalidConfiguration, or the backend's.
    """
    engine = {
        "device": None if device == "auto" else device,
        "n_threads": threads,
        "max_sequence_length": n_ctx,
    }
    settings = load_settings({"engine": engine})
    name = settings.model if path is None else os.fspath(path)
    file = resolve_model(name, settings.aliases)
    return Model(file, None if vocab_only else settings.engine)


class Model:
    """A loaded model. `close` it, or use it in a `with` block.

    Prompts that are given together (`generate_batch`, streams read in turns) run as one batch.
    Threads may share a model; their calls take turns. path: its file. After `close` every method
    raises InvalidRequest.
    """

    def __init__(self, path: Path, config: EngineConfig | None) -> None:
        """config None: the tokenizer and the chat template only. Raises as `load` does."""
        self.path = path
        self._session: EngineSession | None = None
        self._is_closed = False
        log_to_host()
        if config is None:
            with GGUFFile.open(path, map_tensors=False) as file:
                self._text = ModelText(file.metadata)
            self._text.tokenizer  # noqa: B018  # built now: nothing else is here to be used
            return
        config = replace(config, model_path=os.fspath(path))
        start_s = monotonic_s()
        self._runner = load_runner(config)
        self._text = ModelText(self._runner.metadata)
        self._session = _session(self._runner, config)
        self._logits = LogitsProgram(self._runner)
        self._facts = self._runner.facts(monotonic_s() - start_s)

    # ------------------------------------------------------------------ what it is

    @property
    def facts(self) -> EngineFacts:
        """What really runs: backend, device, ISA, threads, types, sizes."""
        self._running()
        return self._facts

    @property
    def n_ctx(self) -> int:
        """Positions of one sequence, prompt and answer together."""
        self._running()
        return self._runner.limits.n_ctx

    @property
    def n_vocab(self) -> int:
        """V: rows of the logits."""
        self._running()
        return self._runner.limits.n_vocab

    @property
    def tokenizer(self) -> Tokenizer:
        """The file's own tokenizer.

        Raises InvalidRequest when it has none, UnsupportedModelFormat for one of another kind.
        """
        return self._open_text().tokenizer

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` can be used."""
        text = self._open_text()
        return text.has_tokenizer and bool(text.templates)

    # ------------------------------------------------------------------ text and ids

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """The token ids of a text. add_special: add BOS and EOS where the model wants them.
        parse_special: read the texts of special tokens as these tokens.
        """
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of token ids; special tokens are left out, or named with
        skip_special=False.
        """
        return self.tokenizer.decode(_plain_ids(token_ids), skip_special=skip_special)

    def chat_prompt(
        self,
        messages: Sequence[object],
        *,
        tools: Sequence[object] | None = None,
        **variables: Any,
    ) -> str:
        """The messages as the model's chat template writes them, ready for the answer.

        messages: {"role": …, "content": …} as in the OpenAI API. variables: what the template
        knows beyond them. Raises InvalidRequest when there is no template or it refuses them.
        """
        return self._open_text().chat_prompt(messages, tools=tools, variables=variables)

    # ------------------------------------------------------------------ running

    def logits(self, token_ids: Iterable[int]) -> npt.NDArray[np.float32]:
        """float32 [T, V]: row t is what the model expects after token_ids[: t + 1].

        Needs no tokenizer. Raises InvalidRequest for no ids or ids outside the vocabulary,
        ContextLengthExceeded for more than n_ctx.
        """
        session, limits = self._running(), self._runner.limits
        ids = _plain_ids(token_ids)
        if not ids:
            raise InvalidRequest("logits needs at least one token id", param="token_ids")
        if len(ids) > limits.n_ctx:
            raise ContextLengthExceeded(
                f"context_length_exceeded: {len(ids)} tokens, and the context holds "
                f"{limits.n_ctx}; give fewer, or load the model with a larger n_ctx",
                n_prompt_tokens=len(ids),
                n_ctx=limits.n_ctx,
                param="token_ids",
            )
        wrong = next((i for i in ids if not 0 <= i < limits.n_vocab), None)
        if wrong is not None:
            raise InvalidRequest(
                f"token id {wrong} is not in the vocabulary (0 to {limits.n_vocab - 1})",
                param="token_ids",
            )
        with session.turn():
            return self._logits.logits(np.array(ids, np.int32))

    def generate(self, prompt: Prompt, params: SamplingParams | None = None) -> GenerationResult:
        """Continue a prompt to its end. Raises InvalidRequest, ContextLengthExceeded, or what the
        engine fails with.
        """
        return self.stream(prompt, params).finish()

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[GenerationResult]:
        """Continue many prompts at once; results in their order, each as if it ran alone.

        params: one for all, or one for each. Raises as `generate`, before anything has run when a
        prompt is at fault (its number is in the message).
        """
        self._running()
        each = _params_for_each(params, len(prompts))
        requests = [
            self._request(prompt, own, f"prompt {number}: ")
            for number, (prompt, own) in enumerate(zip(prompts, each, strict=True))
        ]
        return run_batch(requests, self._submit, self._facts.max_batch_size)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> GenerationStream:
        """Continue a prompt, one delta per token; see GenerationStream. Raises as `generate`."""
        return self._submit(self._request(prompt, params or SamplingParams()))

    def chat(
        self,
        messages: Sequence[object],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[object] | None = None,
        **variables: Any,
    ) -> GenerationResult:
        """Answer a conversation. Raises as `chat_prompt` and `generate`."""
        return self.stream_chat(messages, params, tools=tools, **variables).finish()

    def stream_chat(
        self,
        messages: Sequence[object],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[object] | None = None,
        **variables: Any,
    ) -> GenerationStream:
        """Answer a conversation, one delta per token. Raises as `chat`."""
        self._running()
        prompt = self.chat_prompt(messages, tools=tools, **variables)
        request = self._request(prompt, params or SamplingParams())
        return self._submit(request, continuation=False)

    # ------------------------------------------------------------------ its life

    def close(self) -> None:
        """Free the model; what still runs is lost. Does nothing the second time."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._session is not None:
            self._session.close(self._logits.close, self._runner.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open_text(self) -> ModelText:
        if self._is_closed:
            raise InvalidRequest("this model is closed; load it again")
        return self._text

    def _running(self) -> EngineSession:
        self._open_text()
        if self._session is None:
            raise InvalidRequest(
                "this model was loaded with vocab_only=True and has no weights to run; load it "
                "without"
            )
        return self._session

    def _request(self, prompt: Prompt, params: SamplingParams, where: str = "") -> Request:
        """A request that the engine will take. Raises what is wrong with it, with `where` in
        front.
        """
        session, limits = self._running(), self._runner.limits
        text = self._text
        try:
            if isinstance(prompt, str):
                ids = text.tokenizer.encode(prompt, parse_special=True)
            else:
                ids = _plain_ids(prompt)
            eog_ids = sorted(text.tokenizer.eog_ids) if text.has_tokenizer else ()
            request = session.request(ids, params, eog_ids)
            check_request(request, limits.n_vocab, limits.n_ctx)
        except RocmForgeError as error:
            error.message = where + error.message
            error.args = (error.message,)
            raise
        return request

    def _submit(self, request: Request, *, continuation: bool = True) -> GenerationStream:
        session, params = self._running(), request.params
        detokenizers = [
            self._text.detokenizer(params.stop, continuation=continuation) for _ in range(params.n)
        ]
        return GenerationStream(session, session.submit(request, detokenizers))


def _session(runner: Runner, config: EngineConfig) -> EngineSession:
    budget = warm_up(runner, config)

    def make_engine() -> Engine:
        return Engine(runner, runner.new_sampler(), config, budget=budget, device=runner.device)

    return EngineSession(make_engine)


def _plain_ids(token_ids: Iterable[int]) -> list[int]:
    try:
        return [operator.index(token_id) for token_id in token_ids]
    except TypeError as error:
        raise InvalidRequest(
            f"token ids must be a flat sequence of integers: {error}", param="token_ids"
        ) from None


def _params_for_each(
    params: SamplingParams | Sequence[SamplingParams] | None, n: int
) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * n
    if len(params) != n:
        raise InvalidRequest(
            f"there are {n} prompts and {len(params)} params; give one for all or one for each",
            param="params",
        )
    return list(params)
