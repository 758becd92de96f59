"""Re-checks the permissions of open streams periodically, once per API key or session."""

import asyncio
from concurrent.futures import Executor
from functools import partial
from uuid import UUID

from api.errors import AWAY
from jobs.access import callers
from jobs.access.callers import Caller
from jobs.db import session_scope

AGAIN_SECONDS = 10.0  # during which a result is used again


class StreamPermissions:
    """Current permissions of the keys that hold streams."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._found: dict[tuple[UUID, UUID | None], tuple[float, asyncio.Task[Caller | None]]] = {}

    async def now(self, caller: Caller) -> Caller | None:
        """Return the caller with its current roles; None if its key is no longer valid."""
        time = asyncio.get_running_loop().time()
        place = caller.key_id, caller.session_id
        at, task = self._found.get(place, (time - AGAIN_SECONDS, None))
        if task is None or time - at >= AGAIN_SECONDS:
            old = [id for id, (at, _) in self._found.items() if time - at >= 2 * AGAIN_SECONDS]
            for id in old:
                del self._found[id]
            task = asyncio.create_task(self._look(caller))
            self._found[place] = (time, task)
        return await asyncio.shield(task)

    async def _look(self, caller: Caller) -> Caller | None:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(_still, caller))
        except AWAY:  # without the database the stream sends no new data either
            return caller


def _still(caller: Caller) -> Caller | None:
    with session_scope() as session:
        return callers.reidentify(session, caller)
