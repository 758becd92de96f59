"""Unit tests start no process: an attempt fails the test."""

import os
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import NoReturn

import pytest


def _refuse(*arguments: object, **options: object) -> NoReturn:
    raise AssertionError("this unit test starts a process: move the test to tests/process, or use a fake")


@contextmanager
def _no_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", _refuse)
        patch.setattr(BaseProcess, "start", _refuse)
        patch.setattr(os, "fork", _refuse)
        yield


# Hooks, not a fixture: they cover the fixtures of every scope, and leave the end of the session's servers alone.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    with _no_process():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    with _no_process():
        yield
