"""Worker processes that decode and process images ahead of the step that needs them.

Workers are new interpreters (spawn), started at the first request. Their results are those of the trainer's process,
bit for bit. They end with it. Results cross a pipe as bytes: shared memory is often small in containers.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from calibrl_core.data.schema import DataError, Example
from calibrl_core.data.stored_images import image_sizes
from calibrl_core.host.parent_death import end_with_parent
from calibrl_core.host.process_limits import REAP_SECONDS
from calibrl_core.models.encoding import PromptEncoder

LONGEST_WAIT = 600.0  # seconds for one prompt, with the start of a worker
MOST_WORKERS = 4  # if the number is not set
# Pixels per step and process below which the images are prepared in less than a second.
FEW_PIXELS = 12_000_000
SAMPLED = 64  # examples whose sizes of images are read to estimate the pixels of a step

Packed = dict[str, tuple[Any, torch.dtype, torch.Size]]  # per tensor: its bytes, in a form that no shared memory holds


class EncodingWorkers:
    """Processes prompts with images in other processes. `close` ends them."""

    def __init__(self, encoder: PromptEncoder, workers: int, most: int) -> None:
        """workers: number of processes, at least 1. most: prompts that are sent ahead at once."""
        self._encoder = encoder
        self._requests: list[Example] = []
        self._missing: set[Example] = set()  # requested, but not received yet
        self._ready: dict[Example, Packed | DataError] = {}  # received, but not taken yet
        self._arriving: Iterator[tuple[Packed | DataError, Example]] | None = None
        self._processes: set[BaseProcess] = set()
        self._loader: DataLoader[Any] | None = DataLoader(
            _Processing(encoder),
            sampler=self._requests,  # read again for each iterator
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            multiprocessing_context="spawn",
            worker_init_fn=partial(_begin, os.getpid()),
            timeout=LONGEST_WAIT,
            persistent_workers=True,
            prefetch_factor=-(-most // workers),
            generator=torch.Generator(),  # otherwise each iterator draws from torch's global one
        )

    def request(self, examples: Sequence[Example]) -> None:
        """Begin to process those of `examples` that have images and are neither kept nor requested. Waits for earlier
        requests; of their results only those of `examples` are kept.
        """
        self._receive()
        assert self._loader is not None
        self._ready = {example: self._ready[example] for example in examples if example in self._ready}
        self._requests[:] = [
            example
            for example in dict.fromkeys(examples)
            if example.images and example not in self._ready and not self._encoder.keeps(example)
        ]
        self._missing = set(self._requests)
        if self._requests:
            with _signals_blocked():
                others = set(active_children())
                self._arriving = zip(iter(self._loader), tuple(self._requests), strict=True)  # in the same order
                self._processes |= set(active_children()) - others

    def take(self, example: Example) -> dict[str, Tensor] | None:
        """Return the example as `PromptEncoder.processed` does, or None if it was not requested.

        Raises:
            DataError: as `PromptEncoder.encode`.
            RuntimeError: a worker ended, or did not answer in time.
        """
        if example in self._missing:
            self._receive(until=example)
        result = self._ready.pop(example, None)
        if isinstance(result, DataError):
            raise result
        return None if result is None else _unpacked(result)

    def close(self) -> None:
        """End the workers. Takes at most a few seconds per worker."""
        self._arriving = self._loader = None  # the library asks its workers to end when nothing refers to it
        for process in self._processes:  # one that hangs in an image does not
            process.kill()
            process.join(REAP_SECONDS)

    def _receive(self, until: Example | None = None) -> None:
        """Receive results, up to that of one example or all."""
        while self._arriving is not None and (until is None or until not in self._ready):
            try:
                result, example = next(self._arriving)
                self._ready[example] = result
                self._missing.discard(example)
            except StopIteration:
                self._arriving = None
            except RuntimeError as error:  # the library's only kind: a worker ended, no answer, an error in a worker
                raise RuntimeError(
                    f"a process that prepares images failed: {error}; if memory was short, lower data_workers (0: none)"
                ) from error


def useful_workers(encoder: PromptEncoder, examples: Sequence[Example], per_process: int, processes: int) -> int:
    """Return how many worker processes a process should have.

    None if its `per_process` prompts of a step have few pixels, or the processor cannot be copied to another process;
    otherwise as many as there are CPUs for, up to MOST_WORKERS. processes: number of processes that share the CPUs of
    this machine.
    """
    sample = examples[:: -(-len(examples) // SAMPLED)]
    pixels = sum(width * height for one in sample for width, height in image_sizes(one.images))
    if pixels * per_process < FEW_PIXELS * len(sample):
        return 0
    try:
        pickle.dumps(encoder.processor)
    except Exception:  # third-party code
        return 0
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // processes - 1))


class _Processing(Dataset[Any]):
    """Processes an example in a worker. The example is the index: so no worker needs a copy of the data."""

    def __init__(self, encoder: PromptEncoder) -> None:
        # Without the encoded prompts, and without the model, whose function computes the positions.
        self._encoder = PromptEncoder(encoder.processor, None, encoder.form, bfloat16=encoder.bfloat16)

    def __getitem__(self, example: Example) -> Packed | DataError:
        try:
            return _packed(self._encoder.processed(example))
        except DataError as problem:
            return problem


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals in processes that start meanwhile: a signal to the trainer's process group asks the trainer to stop
    after its step, for which it needs its workers.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _begin(trainer: int, number: int) -> None:
    """Let a worker end with the process `trainer`. number: of the worker."""
    end_with_parent(lambda parent: parent == trainer, "the trainer that started this process is gone")


def _unchanged(result: Any) -> Any:
    return result


def _packed(tensors: dict[str, Tensor]) -> Packed:
    return {
        name: (tensor.contiguous().flatten().view(torch.uint8).numpy(), tensor.dtype, tensor.shape)
        for name, tensor in tensors.items()
    }


def _unpacked(packed: Packed) -> dict[str, Tensor]:
    return {name: torch.from_numpy(data).view(dtype).reshape(shape) for name, (data, dtype, shape) in packed.items()}
