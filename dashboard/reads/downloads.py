"""Files of jobs and data sets, passed on from the API piece by piece with the viewer's key.

A browser can't send that key itself, and Streamlit's own downloads lie in the server's memory: a checkpoint may be
larger than that.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from uuid import UUID

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from calibrl.client import CalibrlError, Client
from dashboard import signin

CHECKPOINT = re.compile(r"checkpoint-(\d{1,10})\.tar")
RESULT = re.compile(r"result/(.+)")
File = tuple[str, Iterator[bytes]]  # what to save it as, and what is in it


def address(job_id: UUID, file: str) -> str:
    """Where a job's metrics.csv, metrics.parquet, tensorboard, log.txt, checkpoint-STEP.tar or result/NAME is."""
    return f"files/{job_id}/{file}"


def dataset_address(id: UUID) -> str:
    """Where a data set's file is."""
    return f"files/dataset/{id}"


async def _send_dataset(request: Request) -> Response:
    id: UUID = request.path_params["id"]
    return await _passed_on(request, lambda client: _dataset(client, id))


async def _send(request: Request) -> Response:
    job_id, file = request.path_params["job_id"], request.path_params["file"]
    name = f"events.out.tfevents.{job_id}" if file == "tensorboard" else f"{job_id}-{file.rpartition('/')[2]}"
    return await _passed_on(request, lambda client: (name, _file(client, job_id, file)))


async def _passed_on(request: Request, read: Callable[[Client], File]) -> Response:
    try:
        pieces = _pieces(signin.key_of(request.cookies), read)
        name = (await run_in_threadpool(next, pieces)).decode()
        first = await run_in_threadpool(next, pieces, b"")  # an error of the API comes with it
    except signin.SignedOut:
        return PlainTextResponse("Sign in first.", 401)
    except CalibrlError as error:
        return PlainTextResponse(str(error), error.status or 502)
    safe = re.sub(r"[^A-Za-z0-9._\-]", "_", name)
    headers = {
        "Content-Disposition": f'attachment; filename="{safe}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return StreamingResponse(chain([first], pieces), media_type="application/octet-stream", headers=headers)


def _pieces(key: str, read: Callable[[Client], File]) -> Iterator[bytes]:
    """A file's name, and then what is in it."""
    with Client(api_key=key) as client:
        name, content = read(client)
        yield name.encode()
        yield from content


def _dataset(client: Client, id: UUID) -> File:
    dataset = client.dataset(id)
    return f"{dataset.name.removesuffix(f'.{dataset.format}')}.{dataset.format}", client.dataset_content(id)


def _file(client: Client, job_id: UUID, file: str) -> Iterator[bytes]:
    if match := CHECKPOINT.fullmatch(file):
        return client.archive(job_id, int(match[1]))
    if match := RESULT.fullmatch(file):
        return client.result(job_id, match[1])
    match file:
        case "metrics.csv":
            return client.exported(job_id, "csv")
        case "metrics.parquet":
            return client.exported(job_id, "parquet")
        case "tensorboard":
            return client.exported(job_id, "tensorboard")
        case "log.txt":
            return client.whole_log(job_id)
    raise CalibrlError(f"there is no file {file!r} of a job", status=404)


routes = [
    Route("/files/dataset/{id:uuid}", _send_dataset, methods=["GET"]),
    Route("/files/{job_id:uuid}/{file:path}", _send, methods=["GET"]),
]
