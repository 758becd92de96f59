"""A thousand streams of one API process: memory, and the delay until all have received an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from bench import report
from bench.api.context import Bench
from bench.report import ReportRow, percentile

OPENED_AT_ONCE = 20
OF_ALL = 10  # one of that many streams is of all jobs
WAIT_SECONDS = 60.0
SETTLE_SECONDS = 2.0
MEGABYTE = 1e6


def measure(bench: Bench) -> list[ReportRow]:
    claims = bench.machine.hold(bench.sizes.jobs)
    pid = _api_process(bench.url)
    before = _resident(pid)
    with bench.part("streams"):
        after, delays = asyncio.run(_many(bench, [claim.job_id for claim in claims], pid))
    bench.machine.finish(claims)
    count = f"{bench.sizes.streams:,} streams"
    measure = f"an API event to all of its job's subscribers, {count}, p95; peer: p50"
    return [
        report.no_goal(f"memory of the API's process with {count}; peer: with none", after, before, "MB"),
        report.no_goal(measure, percentile(delays, 0.95), percentile(delays, 0.5), "s"),
    ]


async def _many(bench: Bench, job_ids: Sequence[UUID], pid: int) -> tuple[float, list[float]]:
    """Return megabytes with all streams open, and each stream's delay of an event of its job."""
    room = asyncio.Semaphore(OPENED_AT_ONCE)

    async def opened(number: int) -> tuple[UUID | None, Stream]:
        job_id = job_ids[number % len(job_ids)] if number % OF_ALL else None
        async with room:
            return job_id, await Stream.open(bench, f"/v1/jobs/{job_id}/stream" if job_id else "/v1/stream")

    streams = await asyncio.gather(*map(opened, range(bench.sizes.streams)))
    await asyncio.sleep(SETTLE_SECONDS)
    delays: list[float] = []
    for job_id in job_ids:
        mine = [asyncio.create_task(stream.hears(b"priority")) for of, stream in streams if of == job_id]
        begin = time.time()
        await asyncio.to_thread(bench.client.prioritise, job_id, "high")
        delays += [arrived - begin for arrived in await asyncio.gather(*mine)]
    megabytes = _resident(pid)
    for _, stream in streams:
        stream.close()
    return megabytes, delays


class Stream:
    """An open stream: only a socket, so that a thousand streams need few resources in this process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, bench: Bench, path: str) -> Stream:
        """Open a stream at an address of the API; return after its first frame."""
        address = urlsplit(bench.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        lines = (f"GET {path} HTTP/1.1", f"Host: {address.netloc}", f"Authorization: Bearer {bench.key}", "", "")
        writer.write("\r\n".join(lines).encode())
        stream = cls(reader, writer)
        await stream.hears(b"\n\n")
        return stream

    async def hears(self, text: bytes) -> float:
        """Return the time at which the event arrives."""
        await asyncio.wait_for(self._reader.readuntil(text), WAIT_SECONDS)
        return time.time()

    def close(self) -> None:
        self._writer.close()


def _api_process(url: str) -> int:
    """Return the pid of the API that listens at this address."""
    wanted = {b"api.main:app", str(urlsplit(url).port).encode()}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted <= set(path.read_bytes().split(b"\0")):
                return int(path.parent.name)
        except OSError:
            continue  # it has ended meanwhile
    raise RuntimeError(f"no process of this machine serves {url}")


def _resident(pid: int) -> float:
    """Return the resident memory of a process in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) * 1024 / MEGABYTE
