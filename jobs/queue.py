"""Wake-ups over Celery. A wake-up has no content: a lost one costs latency, a duplicate costs one query."""

from collections.abc import Mapping
from typing import Any

import structlog
from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from jobs.settings import get_settings

WAKE = "calibrl.wake"
MAX_WAITING_WAKE_UPS = 64  # maximum wake-ups in the queue of a worker

log = structlog.get_logger()

# Limits of a publisher. A worker waits longer, because its blocking reads alone last one second.
_PUBLISH_OPTIONS = {
    "socket_connect_timeout": 2,
    "socket_timeout": 2,
    "max_retries": 0,
    "connect_retries_timeout": 2,
}


def _configuration() -> dict[str, Any]:
    url = get_settings().need("redis_url")
    return {
        "broker_url": url,
        "broker_read_url": url,
        "broker_write_url": url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {"socket_connect_timeout": 5, "socket_timeout": 15, "socket_keepalive": True},
        "task_acks_late": False,
        "task_ignore_result": True,
        "task_create_missing_queues": True,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
    }


app = Celery("calibrl")
app.add_defaults(_configuration)  # called at first use, so that an import needs no settings


def queue_name(worker: str) -> str:
    """Return the name of the queue of a worker: a wake-up goes to the machine that has room."""
    return f"worker.{worker}"


def wake(workers: Mapping[str, int]) -> None:
    """Send wake-ups to workers, each the given number of times. A broker error is only logged: the sweep sends them
    again."""
    if not workers:
        return
    url = get_settings().need("redis_url")
    try:
        with Connection(url, transport_options=_PUBLISH_OPTIONS) as connection:  # type: ignore[no-untyped-call]
            waiting = connection.default_channel.client.llen
            for worker, count in workers.items():
                # A worker that hangs takes none; a few are enough for its recovery.
                for _ in range(min(count, MAX_WAITING_WAKE_UPS - waiting(queue_name(worker)))):
                    app.send_task(WAKE, queue=queue_name(worker), connection=connection, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("wake-ups not sent", workers=list(workers), error=str(error))


def check() -> None:
    """Ping the broker, with a time limit of seconds.

    Raises:
        RedisError: the broker does not answer.
    """
    options = {"socket_connect_timeout": 2, "socket_timeout": 2}
    with Redis.from_url(get_settings().need("redis_url"), **options) as client:
        client.ping()
