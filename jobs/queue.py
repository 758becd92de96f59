"""Wake-ups over Celery. A wake-up carries nothing: a lost one costs latency, a doubled one a look at the database."""

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
MOST_WAITING = 64  # wake-ups for one worker

log = structlog.get_logger()

# A publisher gives up after this; a worker waits longer, because its blocking reads last a second by themselves.
_PUBLISH_OPTIONS = {
    "socket_connect_timeout": 2,
    "socket_timeout": 2,
    "max_retries": 0,
    "connect_retries_timeout": 2,
}


def _configuration() -> dict[str, Any]:
    return {
        "broker_url": get_settings().need("redis_url"),
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
app.add_defaults(_configuration)  # called at first use: importing this module needs no settings


def queue_name(worker: str) -> str:
    """The queue that a worker listens to: a wake-up goes to the machine that has room."""
    return f"worker.{worker}"


def wake(workers: Mapping[str, int]) -> None:
    """Tell workers that there may be jobs for them, each so many times. A broker that is away is only logged: the
    sweep repeats."""
    if not workers:
        return
    url = get_settings().need("redis_url")
    try:
        with Connection(url, transport_options=_PUBLISH_OPTIONS) as connection:  # type: ignore[no-untyped-call]
            waiting = connection.default_channel.client.llen
            for worker, count in workers.items():
                # Nobody takes them where a worker hangs; a few will do for when it no longer does.
                for _ in range(min(count, MOST_WAITING - waiting(queue_name(worker)))):
                    app.send_task(WAKE, queue=queue_name(worker), connection=connection, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("wake-ups not sent", workers=list(workers), error=str(error))


def check() -> None:
    """Ask the broker for a sign of life, within seconds.

    Raises:
        RedisError: there is none.
    """
    options = {"socket_connect_timeout": 2, "socket_timeout": 2}
    with Redis.from_url(get_settings().need("redis_url"), **options) as client:
        client.ping()
