"""Shell completion of job ids, asked from the service while the user types."""

import typer

from calibrl.client import Client, profiles

TIMEOUT_SECONDS = 0.5  # per try
SHOWN = 30


def job_ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the newest jobs whose ids begin with `incomplete`, as pairs of id and `name, status`; also `latest`.

    Returns nothing if the service does not answer: an error message would be printed into the command line.
    """
    profiles.chosen.set(context.find_root().params.get("profile"))
    try:
        with Client(data_dir=context.params.get("data"), timeout=TIMEOUT_SECONDS) as client:
            jobs = client.jobs(q=incomplete or None, limit=SHOWN).data
    except Exception:
        return []
    ids = [(str(job.id), f"{job.name}, {job.status}") for job in jobs]
    return [pair for pair in [("latest", "the latest job"), *ids] if pair[0].startswith(incomplete)]
