"""Counts tokens with the tokenizer of a model folder, in a separate process with limits: a harmful tokenizer can only
end that process (`jobs.processes.token_counter`).
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from calibrl.processes import children
from calibrl_core.data.schema import Example
from jobs.files.allowed_sources import kept_model_problem, model_problem
from jobs.processes import sandbox

COUNTER = "jobs.processes.token_counter"
MEMORY_BYTES = 2 * 2**30
LIMIT_SECONDS = 10  # for all texts of a report or a plan
LARGEST_FILE = 64 * 2**20  # bytes of a tokenizer.json; those of large vocabularies have 20 MiB
LONGEST_ANSWER = 32  # bytes of a line


class TokenizerRefusal(Exception):
    """The tokens of a model cannot be counted here. The message has the reason."""


def tokenizer_file(folder: Path) -> Path:
    """Return the tokenizer of a model that jobs can load.

    Raises:
        TokenizerRefusal: jobs cannot load the model, or it has no tokenizer.json of a permitted size.
    """
    return _usable(folder, model_problem(folder))


def kept_tokenizer_file(folder: Path) -> Path:
    """Return the tokenizer of a checkpoint or of a downloaded model that the service keeps.

    Raises:
        TokenizerRefusal: a link leads there or out of it, or it has no tokenizer.json of a permitted size.
        OSError: it cannot be read.
    """
    return _usable(folder, kept_model_problem(folder))


def _usable(folder: Path, problem: str | None) -> Path:
    if problem:
        raise TokenizerRefusal(problem)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise TokenizerRefusal(f"{folder} has no tokenizer.json: its tokens cannot be counted here")
    if file.stat().st_size > LARGEST_FILE:
        raise TokenizerRefusal(f"{file} has more than {LARGEST_FILE // 2**20} MiB: its tokens cannot be counted here")
    return file


class TokenizerProcess:
    """Counts tokens without torch and without the model's processor. Prompts are counted without chat template and
    images, and the end of an expert's turn as one token, so that no count exceeds that of the trainer.
    """

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = tokenizer
        self._deadline = time.monotonic() + LIMIT_SECONDS
        self._channel, self._other = socket.socketpair()

    def __enter__(self) -> Self:
        command = sandbox.command(COUNTER, str(self._tokenizer), memory=MEMORY_BYTES, seconds=LIMIT_SECONDS)
        environment = children.environment_without_secrets() | {"RAYON_NUM_THREADS": "1"}
        self._process = children.start(command, log=Path(os.devnull), env=environment, stdin=self._other.fileno())
        self._other.close()
        self._lines = self._channel.makefile("rwb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # it writes what `_count` could not
            self._lines.close()
        self._channel.close()
        children.stop(self._process, 0)

    def prompt(self, example: Example) -> int:
        """Return the number of tokens of the texts of a prompt.

        Raises:
            TokenizerRefusal: the tokenizer cannot be read, or takes too long.
        """
        return sum(self._count(text) for text in (*(turn.text for turn in example.earlier), example.question))

    def expert(self, expert: str) -> int:
        """Return the number of tokens of an expert. A `<think>` at its start can be part of the prompt.

        Raises:
            TokenizerRefusal: the tokenizer cannot be read, or takes too long.
        """
        return self._count(expert.lstrip().removeprefix("<think>")) + 1

    def _count(self, text: str) -> int:
        try:
            self._channel.settimeout(max(0.001, self._deadline - time.monotonic()))
            self._lines.write(json.dumps(text).encode() + b"\n")
            self._lines.flush()
            return int(self._lines.readline(LONGEST_ANSWER))
        except (OSError, ValueError):  # the process has ended, or the time is up
            raise TokenizerRefusal(
                f"{self._tokenizer} cannot be read, or took more than {LIMIT_SECONDS} s: its tokens cannot be counted "
                "here"
            ) from None
