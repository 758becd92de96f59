"""Broken images, rows and containers are read, or refused with a sentence: no reader crashes."""

import warnings
from pathlib import Path

import pytest

from tests.support import hostile_data


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_files_are_read_or_refused(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_data, "LARGE", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders
        for read in (hostile_data.submit_all, hostile_data.train_on_all):
            cost = read(seed, 65, tmp_path)
            assert (cost.files, cost.faults) == (65, [])


def test_the_same_seed_gives_the_same_files() -> None:
    first, again, other = (list(hostile_data.hostile_files(seed, 30)) for seed in (1, 1, 2))
    assert first == again != other


def test_an_error_of_a_reader_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyError("images")

    monkeypatch.setattr(hostile_data, "check_data", crash)
    faults = hostile_data.submit_all(1, 1, tmp_path).faults
    assert len(faults) == 1 and faults[0].endswith("KeyError: 'images'\n")
