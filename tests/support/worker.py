"""The worker's task in the test's own process: it costs no start of a Celery worker."""


def wake() -> None:
    """Run the task of a wake-up in this process."""
    from worker.tasks import wake as task

    task()
