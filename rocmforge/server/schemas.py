"""Request bodies. Unknown fields are accepted, known ones that ask for more than we have are
refused (unsupported.py), wrong types are a 400 that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from rocmforge.errors import InvalidRequest
from rocmforge.request import MAX_CHOICES, MAX_LOGIT_BIAS, MAX_STOP_STRINGS, SamplingParams

MAX_MESSAGES: Final = 2**16
MAX_STOP_TOKEN_IDS: Final = 1024


def _at_most(limit: int) -> BeforeValidator:
    """Refuses a longer list or object before its items are looked at: validation runs on the event
    loop, and a body of some megabytes holds millions of items."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, (list, dict)) and len(value) > limit:
            name = info.field_name
            raise InvalidRequest(f"{name} may have at most {limit} entries", param=name)
        return value

    return BeforeValidator(check)


def _is_ids(value: Any) -> bool:
    # By exact type, at C speed: true is no token id.
    return isinstance(value, list) and set(map(type, value)) == {int}


def _id_list(value: Any) -> list[int]:
    if value == [] or _is_ids(value):
        ids: list[int] = value
        return ids
    raise InvalidRequest("tokens must be a list of token ids", param="tokens")


def _prompt(value: Any) -> Any:
    """By hand: of a union of list types, each is tried item by item."""
    if isinstance(value, str) or _is_ids(value):
        return value
    if isinstance(value, list) and len(value) > MAX_CHOICES:
        raise InvalidRequest(f"at most {MAX_CHOICES} prompts are allowed", param="prompt")
    if isinstance(value, list) and (
        all(isinstance(item, str) for item in value) or all(map(_is_ids, value))
    ):
        return value
    raise InvalidRequest("prompt must be a text, token ids, or a list of either", param="prompt")


Prompt = Annotated[str | list[int] | list[str] | list[list[int]], PlainValidator(_prompt)]
TokenIds = Annotated[list[int], PlainValidator(_id_list)]
Messages = Annotated[list[dict[str, Any]], _at_most(MAX_MESSAGES), Field(min_length=1)]
Stop = Annotated[str | list[str] | None, _at_most(MAX_STOP_STRINGS)]
LogitBias = Annotated[dict[str, float] | None, _at_most(MAX_LOGIT_BIAS)]
StopTokenIds = Annotated[list[int] | None, _at_most(MAX_STOP_TOKEN_IDS)]


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


Parsed = TypeVar("Parsed", bound=Body)


class StreamOptions(Body):
    """OpenAI's stream_options."""

    include_usage: bool = False


class SamplingBody(Body):
    """Sampling fields by the names of OpenAI, llama.cpp and vLLM; null is the default."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: LogitBias = None
    seed: int | None = None
    n: int | None = None
    stop: Stop = None
    stop_token_ids: StopTokenIds = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def sampling(self, **more: Any) -> SamplingParams:
        """The parameters; `more` overrides. Raises InvalidRequest and the sampler's errors."""
        values = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            # llama.cpp's -1 is off as well.
            "top_k": None if self.top_k == -1 else self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": _first(self.repetition_penalty, self.repeat_penalty),
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "logit_bias": _token_biases(self.logit_bias),
            "seed": self.seed,
            "n": self.n,
            "stop": _stop_strings(self.stop),
            "stop_token_ids": _some(self.stop_token_ids),
            "min_tokens": self.min_tokens,
            "ignore_eos": self.ignore_eos,
        }
        given = {name: value for name, value in (values | more).items() if value is not None}
        return SamplingParams(**given)

    @property
    def includes_usage(self) -> bool:
        """Whether the stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(SamplingBody):
    """POST /v1/chat/completions."""

    messages: Messages
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def params(self) -> SamplingParams:
        """Raises InvalidRequest when top_logprobs comes without logprobs."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
        return self.sampling(
            max_tokens=_first(self.max_completion_tokens, self.max_tokens),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class CompletionBody(SamplingBody):
    """POST /v1/completions; `prompt` is a text, token ids, or a list of either."""

    prompt: Prompt
    logprobs: int | None = None

    def params(self) -> SamplingParams:
        """The sampling parameters; OpenAI's default length is 16."""
        return self.sampling(max_tokens=_first(self.max_tokens, 16), logprobs=self.logprobs)

    def prompts(self) -> list[str | list[int]]:
        """One entry per prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            raise InvalidRequest("the prompt is empty", param="prompt")
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # one prompt of token ids
        return list(self.prompt)  # several of either kind


class GenerateBody(SamplingBody):
    """POST /generate and /generate/stream; top_k 0 and top_p 1 are off, temperature 0 is greedy."""

    prompt: str = Field(min_length=1)
    max_tokens: int | None = 100
    temperature: float | None = 1.0
    top_k: int | None = 50
    top_p: float | None = 0.9

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, body: Any) -> Any:
        # This route's defaults, not those of SamplingParams.
        return {name: value for name, value in body.items() if value is not None}

    def params(self) -> SamplingParams:
        """The sampling parameters; one choice only."""
        if self.n not in (None, 1):
            raise InvalidRequest("/generate makes one answer: n must be 1", param="n")
        return self.sampling()


class TokenizeBody(Body):
    """POST /tokenize."""

    content: str | None = None
    prompt: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False

    def text(self) -> str:
        """llama.cpp calls it content, vLLM prompt."""
        text = self.prompt if self.content is None else self.content
        if text is None:
            raise InvalidRequest("content is missing", param="content")
        return text


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: TokenIds


class ApplyTemplateBody(Body):
    """POST /apply-template."""

    messages: Messages
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None


def parse(kind: type[Parsed], body: Mapping[str, Any]) -> Parsed:
    """The validated body. Raises InvalidRequest naming the first field that is wrong."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = str(first["loc"][0]) if first["loc"] else None
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{where}: {first['msg']}", param=field) from error


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _some(values: list[int] | None) -> tuple[int, ...] | None:
    return tuple(values) if values is not None else None


def _stop_strings(stop: Stop) -> tuple[str, ...] | None:
    if stop is None:
        return None
    # An empty string stops nothing; clients send it for "no stop".
    return tuple(text for text in ([stop] if isinstance(stop, str) else stop) if text)


def _token_biases(biases: Mapping[str, float] | None) -> dict[int, float] | None:
    if biases is None:
        return None
    try:
        return {int(token_id): bias for token_id, bias in biases.items()}
    except ValueError:
        raise InvalidRequest("logit_bias maps token ids to numbers", param="logit_bias") from None
