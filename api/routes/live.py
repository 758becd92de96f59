"""Live streams of one job, or of all jobs, as server-sent events."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse

from api.deps import CurrentCaller, ExistingJob, read
from api.live import Encoded, EventStream, Hub
from calibrl.schemas import DAY, HOUR
from jobs import live
from jobs.errors import FieldError, Invalid
from jobs.live import StreamPosition

router = APIRouter(tags=["live"])
MOST_BEHIND = 100_000  # changes of all jobs that a stream of them goes back
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: see docs/how-to/live-streams.md",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


async def _seen(
    after: Annotated[
        str | None, Query(max_length=64, description="Id of the last frame that was received. 0: from the beginning.")
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(max_length=64, description="Id of the last frame that was received. Takes precedence over `after`."),
    ] = None,
) -> str | None:
    return last_event_id or after  # a browser that reconnects sends the header, with the old URL


Seen = Annotated[str | None, Depends(_seen)]
Seconds = Annotated[
    float, Query(gt=0, le=DAY, description="Seconds after which the stream ends. The client then reconnects.")
]


async def _hub(request: Request, caller: CurrentCaller) -> Hub:
    hub: Hub = request.app.state.hub
    hub.check_room(caller.user)
    return hub


Streams = Annotated[Hub, Depends(_hub)]


@router.get("/jobs/{job_id}/stream", response_class=StreamingResponse, responses=DOCUMENTED)
async def stream_job(
    job: ExistingJob, hub: Streams, caller: CurrentCaller, last_id: Seen = None, max_seconds: Seconds = HOUR
) -> EventStream:
    """Stream the changes of a job until it has ended. Without an id the stream starts with the job's current state; the
    other routes return the earlier history."""
    start = _position(last_id, 1) if last_id else Encoded.of(live.first_job_page(job))
    if isinstance(start, StreamPosition) and start.row > (job.feed,):
        raise _unusable(f"the job's stream is only at {job.feed}")
    return EventStream(hub.stream(job, start, seconds=max_seconds, caller=caller))


@router.get("/stream", response_class=StreamingResponse, responses=DOCUMENTED)
async def stream_all(
    request: Request, hub: Streams, caller: CurrentCaller, last_id: Seen = None, max_seconds: Seconds = HOUR
) -> EventStream:
    """Stream the states and events of the jobs of your projects in commit order, from now or from an id that is at most
    100,000 changes old."""
    start = _position(last_id, 2) if last_id else await hub.read(live.first_page)
    if isinstance(start, StreamPosition):
        behind = await read(request, partial(live.changes_behind, position=start))
        if behind > MOST_BEHIND:
            raise _unusable(
                f"it is {behind} changes old, at most {MOST_BEHIND}: read the jobs, and start without an id"
            )
    return EventStream(hub.stream(None, start, seconds=max_seconds, caller=caller))


def _position(text: str, numbers: int) -> StreamPosition:
    try:
        return StreamPosition.parse(text, numbers)
    except ValueError as error:
        raise _unusable(str(error)) from None


def _unusable(message: str) -> Invalid:
    return Invalid("The stream can't go on from there.", (FieldError("after", message),))
