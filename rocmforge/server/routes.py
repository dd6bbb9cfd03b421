"""How handlers become routes: a plain Starlette router that remembers which route it took."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

Handler = Callable[[Request], Awaitable[Response]]


class NamedRoute(Route):
    """A route of one method that `scope["route"]` names, for the metrics."""

    def __init__(self, path: str, handler: Handler, method: str) -> None:
        super().__init__(path, handler, methods=[method])
        self.methods = {method}  # Starlette adds HEAD to GET

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Whether this route takes the request, and what it adds to the scope."""
        match, added = super().matches(scope)
        return match, {**added, "route": self} if match is not Match.NONE else added


class Routes(list[NamedRoute]):
    """The routes of one module."""

    def get(self, path: str) -> Callable[[Handler], Handler]:
        """Decorates the handler of GET `path`."""
        return self._add(path, "GET")

    def post(self, path: str) -> Callable[[Handler], Handler]:
        """Decorates the handler of POST `path`."""
        return self._add(path, "POST")

    def _add(self, path: str, method: str) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.append(NamedRoute(path, handler, method))
            return handler

        return add
