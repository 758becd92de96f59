"""Downloads of files of jobs and datasets, streamed from the API with the viewer's key.

A browser cannot send the key itself. Streamlit's own downloads need the whole file in memory, but a checkpoint can be
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
File = tuple[str, Iterator[bytes]]  # file name, content


def address(job_id: UUID, file: str) -> str:
    """Return the URL of a file of a job.

    `file`: metrics.csv, metrics.parquet, tensorboard, log.txt, checkpoint-STEP.tar or result/NAME.
    """
    return f"files/{job_id}/{file}"


def dataset_address(id: UUID) -> str:
    """Return the URL of a dataset's file."""
    return f"files/dataset/{id}"


async def _send_dataset(request: Request) -> Response:
    id: UUID = request.path_params["id"]
    return await _stream(request, lambda client: _dataset(client, id))


async def _send(request: Request) -> Response:
    job_id, file = request.path_params["job_id"], request.path_params["file"]
    return await _stream(request, lambda client: (_name(client, job_id, file), _file(client, job_id, file)))


def _name(client: Client, job_id: UUID, file: str) -> str:
    """The name of the saved file, with the job's name and the beginning of its ID."""
    job = f"{client.job(job_id).name}-{str(job_id)[:8]}"
    return f"events.out.tfevents.{job}" if file == "tensorboard" else f"{job}-{file.rpartition('/')[2]}"


async def _stream(request: Request, read: Callable[[Client], File]) -> Response:
    try:
        pieces = _pieces(signin.key_of(request.cookies), read)
        name = (await run_in_threadpool(next, pieces)).decode()
        first = await run_in_threadpool(next, pieces, b"")  # raises an error of the API, if there is one
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
    """Yield a file's name, then its content."""
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
    raise CalibrlError(f"no file {file!r} of a job", status=404)


routes = [
    Route("/files/dataset/{id:uuid}", _send_dataset, methods=["GET"]),
    Route("/files/{job_id:uuid}/{file:path}", _send, methods=["GET"]),
]
