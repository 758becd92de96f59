"""Sending messages to webhooks: signed as Standard Webhooks has it, to public addresses only, again where it fails."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
import structlog

from jobs.db import session_scope
from jobs.models import Delivery, Webhook
from jobs.repository import webhooks
from jobs.webhooks import public_addresses
from jobs.webhooks.public_addresses import Refused

PREFIX = "whsec_"
SECRET_BYTES = 32
# Seconds from one try to the next; after the last of them the message is given up.
AGAIN = (10, 60, 300, 1800, 7200, 18_000, 36_000)
DEADLINE = 10.0  # seconds that a message may take in all; `jobs.repository.webhooks.SENDING` is well above it
AT_ONCE = 20  # messages under way
AT_ONCE_TO_ONE = 5  # of them to one webhook: one that is slow leaves room for the others
QUICK_SECONDS = 0.5  # for so long those just begun are waited for: most are taken by then

log = structlog.get_logger()
Outcome = tuple[bool, str]  # whether a message was taken, and the answer's status or what went wrong


@dataclass(frozen=True)
class Message:
    """A message as it is sent, and how often that was tried."""

    id: UUID
    webhook_id: UUID
    url: str
    secret: str
    content: dict[str, Any]
    attempts: int

    @classmethod
    def of(cls, delivery: Delivery, webhook: Webhook) -> Self:
        content = {"type": delivery.type, "timestamp": delivery.created_at.isoformat(), "data": delivery.data}
        return cls(delivery.id, webhook.id, webhook.url, webhook.secret, content, delivery.attempts)


def new_secret() -> str:
    """A secret to sign with."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64: https://www.standardwebhooks.com."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


class Sender:
    """Sends what is due, each message in a thread of its own: none waits for another's receiver.

    No transaction is open while the network is waited for. The threads never touch the database: its connections are
    for those who wait for answers.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._under_way: dict[Future[Outcome], Message] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever comes next sends again what is not noted in time.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __call__(self) -> None:
        """One round: begin what is due, and note what has ended."""
        self._note()
        for message in self._take():
            self._under_way[self._pool.submit(send, message)] = message
        wait(self._under_way, timeout=QUICK_SECONDS)
        self._note()

    def _take(self) -> list[Message]:
        busy = Counter(message.webhook_id for message in self._under_way.values())
        room = AT_ONCE - len(self._under_way)
        if not room:
            return []
        with session_scope() as session:
            due = webhooks.take_due(session, room, of_one=AT_ONCE_TO_ONE, busy=busy)
            return [Message.of(delivery, webhook) for delivery, webhook in due]

    def _note(self) -> None:
        ended = [future for future in self._under_way if future.done()]
        if not ended:
            return
        with session_scope() as session:
            for future in ended:
                message = self._under_way[future]
                delivered, response = _outcome(future, message)
                again = None if delivered or message.attempts >= len(AGAIN) else float(AGAIN[message.attempts])
                webhooks.tried(session, message.id, delivered=delivered, response=response, again_in=again)
        for future in ended:  # once that is committed: until then the next round notes them
            del self._under_way[future]


def _outcome(future: Future[Outcome], message: Message) -> Outcome:
    """How a message went; what nobody thought of counts as a try that failed, of this message only."""
    error = future.exception()
    if error is None:
        return future.result()
    log.error("webhook message could not be sent", message=str(message.id), exc_info=error)
    return False, f"the service failed: {type(error).__name__}"


def send(message: Message) -> Outcome:
    """Send a message once, within `DEADLINE`."""
    until = time.monotonic() + DEADLINE
    timestamp = int(time.time())
    body = json.dumps(message.content, allow_nan=False).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "CalibRL-webhooks/1",
        "webhook-id": str(message.id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(message.secret, str(message.id), timestamp, body),
    }
    try:
        url = httpx.URL(message.url)
        address = public_addresses.public_address(url, DEADLINE)
        status = asyncio.run(_post(url, address, headers, body, until - time.monotonic()))
    except Refused as error:
        return False, str(error)
    except TimeoutError:
        return False, f"no answer within {DEADLINE:.0f} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return False, f"{type(error).__name__}: {error}"[:500]
    return 200 <= status < 300, str(status)


async def _post(url: httpx.URL, address: str, headers: dict[str, str], body: bytes, seconds: float) -> int:
    """The status that a message is answered with. Raises TimeoutError where that takes longer than it may in all:
    httpx's own limits begin anew with every byte."""
    # Sent to the very address that was looked at: a name may lead elsewhere a moment later.
    target = url.copy_with(host=address)
    there = {**headers, "Host": url.netloc.decode()}
    extensions = {"sni_hostname": url.host}
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(timeout=None, trust_env=False, follow_redirects=False) as client,
        client.stream("POST", target, content=body, headers=there, extensions=extensions) as answer,
    ):
        return answer.status_code
