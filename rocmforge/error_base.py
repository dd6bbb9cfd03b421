"""What all errors have in common, and how one is rebuilt that crossed a process boundary.

The classes themselves are in errors.py, from where all of this is imported too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar


class ErrorCategory(StrEnum):
    """Who has to act on an error."""

    User = "user"
    Model = "model"
    Recoverable = "recoverable"
    Backend = "backend"
    Internal = "internal"


class RocmForgeError(Exception):
    """An error with a message that a person can act on.

    `message` says what happened and what to do next; `param` names the offending request field, if
    one.
    """

    _category: ClassVar[ErrorCategory] = ErrorCategory.Internal
    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def details(self) -> dict[str, str | int]:
        """What its class knows beyond message and param, in types that can be sent."""
        return {}

    @classmethod
    def _keywords(cls, details: Mapping[str, str | int]) -> dict[str, Any]:
        """The constructor's arguments in another process's `details`, which may be nonsense."""
        return {}

    def copy(self) -> RocmForgeError:
        """Another one like it: a raised error belongs to whoever catches it."""
        return error_from_name(type(self).__name__, self.message, self.param, self.details())

    def category(self) -> ErrorCategory:
        """Who has to act: the caller, the model's owner, nobody (try again), the device, or us."""
        return self._category

    def is_recoverable(self) -> bool:
        """True when the same request may succeed later without a change."""
        return self.category() in (ErrorCategory.Recoverable, ErrorCategory.Backend)

    def is_user_error(self) -> bool:
        """True when the caller must change the request or the configuration."""
        return self.category() is ErrorCategory.User

    def is_internal_error(self) -> bool:
        """True when only a change of ROCmForge helps."""
        return self.category() is ErrorCategory.Internal


def error_from_name(
    name: str,
    message: str,
    param: str | None = None,
    details: Mapping[str, str | int] | None = None,
) -> RocmForgeError:
    """Rebuild an error that crossed the process boundary; an unknown name becomes InternalError,
    details that make no sense are dropped.
    """
    known = _concrete_classes(RocmForgeError)
    if name not in known:
        name, message = "InternalError", f"{name}: {message}"
    cls = known[name]
    return cls(message, param=param, **cls._keywords(details or {}))


def _concrete_classes(root: type[RocmForgeError]) -> dict[str, type[RocmForgeError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_concrete_classes(child))
    return found
