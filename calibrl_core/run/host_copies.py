"""Tensors on their way from training to the thread that writes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from threading import Condition

from torch import Tensor


class HostCopies:
    """Copies of tensors in host memory, in groups. They hold at most `limit` bytes, or a single tensor; the reader
    holds what it has taken.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = Condition()
        self._waiting: deque[tuple[str, Tensor] | None] = deque()  # None: the end of a group
        self._bytes = 0
        self._failure: Exception | None = None

    def put_group(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy named tensors, one after the other. Waits as long as there is no room.

        Raises:
            Exception: the reason that `fail` was called with.
        """
        for name, tensor in tensors:
            with self._changed:
                while self._failure is None and self._bytes and self._bytes + tensor.nbytes > self._limit:
                    self._changed.wait()
                self._check()
            copied = tensor.detach().to("cpu", copy=True).contiguous()
            with self._changed:
                self._waiting.append((name, copied))
                self._bytes += copied.nbytes
                self._changed.notify_all()
        with self._changed:
            self._waiting.append(None)
            self._changed.notify_all()

    def group(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of the next group in order, each as soon as it is here.

        Raises:
            Exception: the reason that `fail` was called with.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._failure or self._waiting)
                self._check()
                item = self._waiting.popleft()
                if item is None:
                    return
                self._bytes -= item[1].nbytes
                self._changed.notify_all()
            yield item

    def fail(self, reason: Exception) -> None:
        """End both sides with this error."""
        with self._changed:
            self._failure = self._failure or reason
            self._waiting.clear()
            self._changed.notify_all()

    def _check(self) -> None:
        if self._failure:
            raise self._failure
