"""What is known about each request: those that run, and the last ones that have ended."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Final

from rocmforge.clock import monotonic_s, unix_s
from rocmforge.errors import RequestNotFound, RocmForgeError
from rocmforge.request import FinishReason, RequestState
from rocmforge.supervisor.client import RequestHandle

N_ENDED: Final = 1000
_RATE_WINDOW_S: Final = 60.0


@dataclass
class RequestRecord:
    """One request as /status shows it; times are Unix seconds. n_queued_tokens: what it is
    expected to come to, prompt included."""

    request_id: str
    route: str
    n_choices: int
    n_prompt_tokens: int
    n_queued_tokens: int = 0
    created_s: float = field(default_factory=unix_s)
    ended_s: float | None = None
    state: RequestState = RequestState.Pending
    n_tokens: int = 0
    n_restarts: int = 0
    finish_reasons: dict[int, FinishReason] = field(default_factory=dict)
    texts: dict[int, list[str]] = field(default_factory=dict)
    error: RocmForgeError | None = None
    handle: RequestHandle | None = None

    def text(self, choice: int = 0) -> str:
        """What the choice has said so far."""
        return "".join(self.texts.get(choice, []))

    def as_fields(self) -> dict[str, Any]:
        """The body of GET /status/{id}."""
        reasons = [self.finish_reasons.get(i) for i in range(self.n_choices)]
        return {
            "request_id": self.request_id,
            "status": str(self.state),
            "route": self.route,
            "created": self.created_s,
            "ended": self.ended_s,
            "prompt_tokens": self.n_prompt_tokens,
            "tokens_generated": self.n_tokens,
            "engine_restarts": self.n_restarts,
            "finished": self.ended_s is not None,
            "finish_reason": reasons[0] if self.n_choices == 1 else reasons,
            "text": self.text()
            if self.n_choices == 1
            else [self.text(i) for i in range(len(reasons))],
            "error": self.error.message if self.error else None,
        }


class RequestRegistry:
    """Records by id. Ended ones are kept up to `n_ended`, oldest dropped first."""

    def __init__(self, n_ended: int = N_ENDED) -> None:
        self._n_ended = n_ended
        self._live: dict[str, RequestRecord] = {}
        self._ended: OrderedDict[str, RequestRecord] = OrderedDict()
        self._endings: deque[tuple[float, int]] = deque(maxlen=n_ended)  # (time, tokens)
        self.n_queued_tokens = 0

    def add(self, record: RequestRecord) -> None:
        """Keep a request that was just accepted."""
        self._ended.pop(record.request_id, None)
        self._live[record.request_id] = record
        self.n_queued_tokens += record.n_queued_tokens

    def end(self, record: RequestRecord, state: RequestState) -> None:
        """Note how a request ended."""
        record.state, record.ended_s, record.handle = state, unix_s(), None
        self._live.pop(record.request_id, None)
        self._ended[record.request_id] = record
        self.n_queued_tokens -= record.n_queued_tokens
        self._endings.append((monotonic_s(), record.n_queued_tokens))
        if len(self._ended) > self._n_ended:
            self._ended.popitem(last=False)

    def get(self, request_id: str) -> RequestRecord:
        """Raises RequestNotFound."""
        record = self._live.get(request_id) or self._ended.get(request_id)
        if record is None:
            raise RequestNotFound(
                f"no request {request_id[:80]!r} is running or among the last {self._n_ended}"
            )
        return record

    def is_live(self, request_id: str) -> bool:
        """True while a request with this id runs."""
        return request_id in self._live

    @property
    def n_live(self) -> int:
        """Requests that have not ended."""
        return len(self._live)

    def seconds_until_room(self, max_requests: int, max_tokens: int) -> float | None:
        """Until a request fits again, at the rate of the last minute; None when too few requests
        ended in it to say."""
        now_s = monotonic_s()
        recent = [ending for ending in self._endings if ending[0] >= now_s - _RATE_WINDOW_S]
        if len(recent) < 2:
            return None
        seconds = max(1.0, now_s - recent[0][0])
        per_request_s = seconds / len(recent)
        n_tokens = sum(n for _, n in recent)
        per_token_s = seconds / max(1, n_tokens)
        excess_requests = max(1, self.n_live + 1 - max_requests)
        # What is refused is taken to be as large as those that ended.
        excess_tokens = max(0, self.n_queued_tokens + n_tokens // len(recent) - max_tokens)
        return max(excess_requests * per_request_s, excess_tokens * per_token_s)
