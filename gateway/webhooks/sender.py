"""Makes the requests of one webhook: signs, posts over verified TLS, and gives the verdict of the answer.

Follows no redirect, keeps no cookie, uses no proxy of the environment, decompresses nothing, reads a bounded part of an
answer. An answer is its status: what comes after the head of a 2xx does not matter. It decides about no retry.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import aiohttp

from gateway.webhooks.addresses import guarded_sockets, parse_networks
from gateway.webhooks.config import ANSWER_BYTES_MAX, WebhookConfig
from gateway.webhooks.verdicts import Outcome, Verdict, judge, printable
from stockade.client.webhooks import ATTEMPT_HEADER, signature_headers

CONTENT_TYPE = "application/cloudevents-batch+json; charset=utf-8"
HEAD_BYTES_MAX = 8 * 1024  # of one line of an answer's head
CONNECTION_KEPT_S = 30.0


class Sender:
    """Made within a running loop; ``close`` it. ``wall_s`` gives the time that is signed."""

    def __init__(self, config: WebhookConfig, version: str, wall_s: Callable[[], float]) -> None:
        self._config = config
        self._wall_s = wall_s
        self._secrets = [(secret.key_id, secret.value) for secret in config.secrets]
        connector = aiohttp.TCPConnector(
            limit=config.lanes,
            ssl=ssl.create_default_context(cafile=config.ca_file or None),
            socket_factory=guarded_sockets(parse_networks(config.allowed_networks)),
            use_dns_cache=False,  # the name is looked up for each connection: a moved endpoint is found
            keepalive_timeout=CONNECTION_KEPT_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=config.timeout_ms / 1000),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"stockade/{version}", **dict(config.headers)},
            auto_decompress=False,
            trust_env=False,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def post(self, delivery_id: str, attempt: int, body: bytes) -> Verdict:
        """One request, within the webhook's timeout. Whatever goes wrong is a verdict."""
        now_s = self._wall_s()
        headers = {
            **signature_headers(delivery_id, int(now_s), body, self._secrets),
            "content-type": CONTENT_TYPE,
            ATTEMPT_HEADER: str(attempt),
        }
        try:
            async with self._session.post(
                self._config.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                text = await self._beginning(answer)
                return judge(answer.status, answer.headers.get("retry-after", ""), text, now_s)
        except TimeoutError:
            return Verdict(Outcome.FAILED, f"no answer within {self._config.timeout_ms} ms")
        except aiohttp.ClientResponseError as error:  # its text would show the whole URL
            return Verdict(Outcome.FAILED, printable(f"the answer is not HTTP: {error.message}"))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Verdict(Outcome.FAILED, printable(f"{type(error).__name__}: {error}"))

    async def _beginning(self, answer: aiohttp.ClientResponse) -> str:
        """What a bounded read of the body says. A body that ends within it leaves the connection fit for the next
        request; any other costs the connection.
        """
        read = bytearray()
        try:
            while not answer.content.at_eof():
                part = await answer.content.read(ANSWER_BYTES_MAX - len(read))
                read += part
                if len(read) >= ANSWER_BYTES_MAX:
                    answer.close()
                    break
        except (TimeoutError, asyncio.IncompleteReadError, aiohttp.ClientError):
            answer.close()
        return read[:ANSWER_BYTES_MAX].decode("utf-8", "replace")
