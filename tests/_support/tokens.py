"""Token caches for tests: a scripted token endpoint, a store in memory, and refused calls."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import attrs

from podero_async import ClientCredentials, PasswordCredentials, Token
from podero_async._auth.cache import TokenCache
from podero_async._auth.grants import TokenRequest, TokenResponse
from podero_async._auth.refusals import Refusals

CLIENT = ClientCredentials("client-1", "s3cret")
PASSWORD = PasswordCredentials("user-1@example.com", "passw0rd")
CONTRACT, GUIDE = "/api/partners/v2.0/auth/token", "/oauth2/token/"


@attrs.define
class ScriptedEndpoint:
    """A token endpoint that records its requests and responds as its fields say."""

    life_s: float | None = 100.0
    takes_s: float = 1.0
    accepts: Callable[[TokenRequest], bool] = lambda _: True
    refusal: tuple[int, Any] = (422, {"detail": "no"})
    failure: Exception | None = None
    refresh_tokens: bool = False
    refuses_refresh: bool = False
    requests: list[TokenRequest] = attrs.field(factory=list)
    issued: int = 0

    async def send(self, request: TokenRequest) -> TokenResponse:
        self.requests.append(request)
        await asyncio.sleep(self.takes_s)
        if self.failure:
            raise self.failure
        if not self.accepts(request):
            return TokenResponse(self.refusal[0], json.dumps(self.refusal[1]).encode())
        if b"refresh_token" in request.body and self.refuses_refresh:
            return TokenResponse(400, b'{"error": "invalid_grant"}')
        self.issued += 1
        fields: dict[str, Any] = {"access_token": f"token-{self.issued}", "expires_in": self.life_s}
        if self.refresh_tokens:
            fields["refresh_token"] = f"refresh-{self.issued}"
        return TokenResponse(200, json.dumps(fields).encode())

    @property
    def parameters(self) -> list[dict[str, str]]:
        """The parameters of all requests, decoded."""
        return [
            dict(parse_qsl(request.body.decode()))
            if request.headers["Content-Type"].endswith("urlencoded")
            else json.loads(request.body)
            for request in self.requests
        ]


@attrs.define
class MemoryStore:
    """A token store for several caches, with a lock for each key."""

    tokens: dict[str, Token] = attrs.field(factory=dict)
    _locks: dict[str, asyncio.Lock] = attrs.field(factory=lambda: defaultdict(asyncio.Lock))

    def lock(self, key: str) -> asyncio.Lock:
        return self._locks[key]

    async def load(self, key: str) -> Token | None:
        assert self._locks[key].locked(), "another process could be renewing it"
        return self.tokens.get(key)

    async def save(self, key: str, token: Token) -> None:
        assert self._locks[key].locked(), "another process could be renewing it"
        self.tokens[key] = token


async def refuse(
    cache: TokenCache, token: str, *, is_accepted: bool | None = False, refusals: Refusals | None = None
) -> bool:
    """Refuse a call; a check of the token has the result `is_accepted`. Return whether the call is sent again."""

    async def check(_: str) -> bool | None:
        return is_accepted

    return await cache.refused(token, refusals or Refusals(), check)


def cache_of(server: ScriptedEndpoint, credentials: Any = CLIENT, **options: Any) -> TokenCache:
    now = asyncio.get_running_loop().time
    return TokenCache(credentials, server.send, **{"origin": "https://x", "now": now, **options})
