"""Sends messages to webhooks in the format of each, only to public addresses or permitted mailboxes, with retries.

Messages of the format `standard` are signed according to Standard Webhooks.
"""

import asyncio
import base64
import json
import secrets
import smtplib
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
import structlog

from calibrl.schemas import WebhookFormat
from calibrl_core.host.public_addresses import Refused
from calibrl_core.host.signatures import PREFIX, signed_headers
from jobs.db import session_scope
from jobs.models import Delivery, Webhook
from jobs.repository import webhooks
from jobs.settings import get_settings
from jobs.webhooks import mail, notices, public_addresses
from jobs.webhooks.notices import PlainMessage

SECRET_BYTES = 32
# Seconds between tries. After the last one the message is given up.
RETRY_SECONDS = (10, 60, 300, 1800, 7200, 18_000, 36_000)
DEADLINE = 10.0  # maximum seconds per try; `jobs.repository.webhooks.SENDING_TIME` must be well above
MAX_SENDING = 20  # messages that are being sent
MAX_SENDING_PER_WEBHOOK = 5  # of them per webhook, so that a slow one leaves room for others
WAIT_SECONDS = 0.5  # wait for new messages: most are delivered by then

SHAPES = {
    WebhookFormat.SLACK: notices.slack,
    WebhookFormat.TEAMS: notices.teams,
    WebhookFormat.DISCORD: notices.discord,
}
log = structlog.get_logger()
Outcome = tuple[bool, str]  # delivered; status of the response, or the error


@dataclass(frozen=True)
class Message:
    """A message to send, and the number of tries so far."""

    id: UUID
    webhook_id: UUID
    url: str
    secret: str
    format: WebhookFormat
    content: dict[str, Any]
    attempts: int

    @classmethod
    def of(cls, delivery: Delivery, webhook: Webhook) -> Self:
        """Return the message of a delivery."""
        data, dashboard_url = delivery.data, get_settings().dashboard_url
        if dashboard_url and delivery.job_id:
            data = {**data, "link": f"{dashboard_url.rstrip('/')}/job?id={delivery.job_id}"}
        content = {"type": delivery.type, "timestamp": delivery.created_at.isoformat(), "data": data}
        return cls(delivery.id, webhook.id, webhook.url, webhook.secret, webhook.format, content, delivery.attempts)


def new_secret() -> str:
    """Return a new secret to sign with."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class Sender:
    """Sends due messages, each in its own thread, so that no message waits for the receiver of another.

    No transaction is open during network access. The threads never use the database: its connections are for requests.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_SENDING, thread_name_prefix="webhook")
        self._under_way: dict[Future[Outcome], Message] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Another process sends again what is not recorded in time.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __call__(self) -> None:
        """Run one round: start due messages, and record finished ones."""
        self._note()
        for message in self._take():
            self._under_way[self._pool.submit(send, message)] = message
        wait(self._under_way, timeout=WAIT_SECONDS)
        self._note()

    def _take(self) -> list[Message]:
        busy = Counter(message.webhook_id for message in self._under_way.values())
        room = MAX_SENDING - len(self._under_way)
        if not room:
            return []
        with session_scope() as session:
            due = webhooks.take_due(session, room, of_one=MAX_SENDING_PER_WEBHOOK, busy=busy)
            return [Message.of(delivery, webhook) for delivery, webhook in due]

    def _note(self) -> None:
        ended = [future for future in self._under_way if future.done()]
        if not ended:
            return
        with session_scope() as session:
            for future in ended:
                message = self._under_way[future]
                delivered, response = _outcome(future, message)
                again = (
                    None
                    if delivered or message.attempts >= len(RETRY_SECONDS)
                    else float(RETRY_SECONDS[message.attempts])
                )
                webhooks.record_attempt(session, message.id, delivered=delivered, response=response, again_in=again)
        for future in ended:  # after the commit: otherwise the next round records them
            del self._under_way[future]


def _outcome(future: Future[Outcome], message: Message) -> Outcome:
    """Return the result of a message. An unexpected error counts as a failed try of this message only."""
    error = future.exception()
    if error is None:
        return future.result()
    log.error("webhook message could not be sent", message=str(message.id), exc_info=error)
    return False, f"error in the service: {type(error).__name__}"


def send(message: Message) -> Outcome:
    """Send a message once, within `DEADLINE`."""
    until = time.monotonic() + DEADLINE
    try:
        if message.format is WebhookFormat.EMAIL:
            return True, mail.send(message.url, PlainMessage.of(message.content), message.id, DEADLINE)
        body, headers = _request(message)
        url = httpx.URL(message.url)
        address = public_addresses.public_address(url, DEADLINE)
        status = asyncio.run(_post(url, address, headers, body, until - time.monotonic()))
    except Refused as error:
        return False, str(error)
    except TimeoutError:
        return False, f"no answer within {DEADLINE:.0f} s"
    except (httpx.HTTPError, httpx.InvalidURL, smtplib.SMTPException, OSError) as error:
        return False, f"{type(error).__name__}: {error}"[:500]
    return 200 <= status < 300, str(status)


def _request(message: Message) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a message."""
    headers = {"User-Agent": "CalibRL-webhooks/1"}
    if message.format is WebhookFormat.STANDARD:
        body = json.dumps(message.content, allow_nan=False).encode()
        return body, headers | signed_headers(message.secret, str(message.id), body)
    shaped = SHAPES[message.format](PlainMessage.of(message.content))
    return json.dumps(shaped).encode(), headers | {"Content-Type": "application/json"}


async def _post(url: httpx.URL, address: str, headers: dict[str, str], body: bytes, seconds: float) -> int:
    """Post a message and return the status of the response.

    Raises:
        TimeoutError: no response within `seconds` in total. The limits of httpx restart with every byte.
    """
    # Connect to the address that was checked: a second lookup could return another one.
    target = url.copy_with(host=address)
    there = {**headers, "Host": url.netloc.decode()}
    extensions = {"sni_hostname": url.host}
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(timeout=None, trust_env=False, follow_redirects=False) as client,
        client.stream("POST", target, content=body, headers=there, extensions=extensions) as answer,
    ):
        return answer.status_code
