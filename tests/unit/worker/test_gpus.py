"""Readings of cards, through a fake NVML at the library's boundary."""

from pathlib import Path

import pytest

from calibrl.schemas import GIB, GpuReading
from tests.support.fake_nvml import Card, pynvml, write
from worker import gpus
from worker.gpus import gpu_indices, is_free, read, visible


def reading(index: int, name: str, total: int, used: int, utilisation: int) -> GpuReading:
    uuid = f"GPU-{index:08d}"
    return GpuReading(index=index, name=name, uuid=uuid, memory_total=total, memory_used=used, utilisation=utilisation)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the file with the GPUs' state; it does not exist yet."""
    path = tmp_path / "cards.json"
    monkeypatch.setattr(gpus, "pynvml", pynvml)
    monkeypatch.setenv("FAKE_NVML", str(path))
    return path


def test_cards_are_read_by_index(cards: Path) -> None:
    write(cards, [Card(used=0.5), Card(name="NVIDIA A10", total=24, used=12, utilisation=97)])
    half = GIB // 2
    first = reading(0, "NVIDIA H100 80GB HBM3", 80 * GIB, half, 0)
    second = reading(1, "NVIDIA A10", 24 * GIB, 12 * GIB, 97)
    assert read() == [first, second]
    assert read([1]) == [second]
    assert read([1, 0, 1]) == [first, second]
    assert read([]) == []


def test_without_a_driver_there_are_no_gpus_until_it_is_loaded(cards: Path) -> None:
    assert read() == read([0]) == []
    write(cards, [Card()])
    assert [gpu.index for gpu in read()] == [0]


def test_a_card_that_fails_or_is_gone_is_left_out(cards: Path) -> None:
    write(cards, [Card(), Card(fails=True), Card()])
    assert [gpu.index for gpu in read()] == [0, 2]
    assert [gpu.index for gpu in read([1, 2, 7])] == [2]


@pytest.mark.parametrize(
    ("total", "used", "free"),
    [
        (80, 0.6, True),  # the driver's reserve
        (80, 4, True),
        (80, 4.1, False),
        (8, 1, True),  # 5 % are less than 1 GiB
        (8, 1.1, False),
        (24, 1.2, True),
        (24, 1.3, False),
    ],
)
def test_a_card_is_free_with_hardly_any_of_its_memory_in_use(
    cards: Path, total: float, used: float, free: bool
) -> None:
    write(cards, [Card(total=total, used=used)])
    (gpu,) = read()
    assert is_free(gpu) is free


@pytest.mark.parametrize(("setting", "indices"), [("all", None), ("none", ()), ("1", [1]), ("0,2", [0, 2])])
def test_the_setting_names_cards(setting: str, indices: object) -> None:
    assert gpu_indices(setting) == indices


def test_a_job_sees_its_cards_and_no_other() -> None:
    assert visible([])["CUDA_VISIBLE_DEVICES"] == ""
    assert visible([0, 3]) == {"CUDA_VISIBLE_DEVICES": "0,3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_the_real_library_has_all_used_functions() -> None:
    import importlib.util

    spec = importlib.util.find_spec("pynvml")
    assert spec is not None and spec.loader is not None
    real = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real)
    asked = [name for name in vars(pynvml) if name.startswith(("nvml", "NVML"))]
    assert [name for name in asked if not hasattr(real, name)] == []
