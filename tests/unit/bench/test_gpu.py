"""The check on a GPU: formulas, shapes, results of earlier runs, and the table."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.gpu import cards, results, shapes, speed
from bench.gpu.__main__ import shown
from bench.gpu.findings import CheckFailed, CheckPart, Item, Measure, Setup, at_least, at_most, required
from bench.gpu.parts import PARTS
from bench.gpu.runner import Result
from bench.gpu.training import SMALL, count_parameters, make_examples

PARAMETERS = speed.Parameters(layers=100, head=10, vision=5)
WORK = speed.Work(prompt_tokens=4, completion_tokens=6, patches=8)


def nothing(_: Setup) -> Iterator[Item]:
    yield from ()


ONE = CheckPart("one", "The first", 1, nothing)
TWO = CheckPart("two", "The second", 1, nothing)
THREE = CheckPart("three", "The third", 1, nothing)


def test_an_update_needs_six_operations_per_parameter_and_token() -> None:
    """100 x (4 + 6) + 10 x 6 = 1,060 in the language model, 5 x 8 = 40 in the vision tower."""
    assert speed.update_flops(PARAMETERS, WORK, lora=False) == 6 * (1060 + 40)


def test_with_adapters_frozen_weights_need_no_gradient() -> None:
    assert speed.update_flops(PARAMETERS, WORK, lora=True) == 4 * 1060 + 2 * 40


def test_utilisation_is_a_share_of_the_peak() -> None:
    assert speed.utilisation(6600.0, seconds=2.0, peak=10_000.0) == 0.33


def test_decoding_is_limited_by_reading_all_weights_per_token() -> None:
    """110 parameters x 2 bytes at 2,200 bytes/s: 10 tokens/s in each of 8 rows."""
    assert speed.decode_limit(8, PARAMETERS, 2, bandwidth=2200.0) == 80


def test_the_7b_shape_has_the_published_number_of_parameters() -> None:
    """16,584,333,312 bytes of bfloat16; embeddings and head have 152,064 x 3,584 each."""
    tensors = shapes.tensor_shapes(shapes.QWEN_7B)
    counted = count_parameters(tensors)
    assert tensors.parameters == 16_584_333_312 // 2
    assert counted.head == 152_064 * 3584
    assert counted.layers + 2 * counted.head + counted.vision == tensors.parameters
    assert (tensors.layers, tensors.kv_width) == (28, 512)


def test_the_3b_shape_uses_its_embeddings_as_head() -> None:
    tensors = shapes.tensor_shapes(shapes.QWEN_3B)
    counted = count_parameters(tensors)
    assert tensors.parameters == 7_509_245_952 // 2
    assert counted.head == 151_936 * 2048
    assert counted.layers + counted.head + counted.vision == tensors.parameters


def test_each_step_has_other_prompts() -> None:
    examples = make_examples(replace(SMALL, prompts=2, steps=2))
    assert [example.answer for example in examples] == ["0", "1", "2", "3", "4", "5"]
    assert len({example.images for example in examples}) == 6


def test_limits_and_starts_are_at_most_12_minutes() -> None:
    starts = 10 * len(PARTS)
    assert sum(part.limit for part in PARTS) + starts <= 12 * 60
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_the_files_are_named_after_the_card() -> None:
    assert results.file_name("NVIDIA H100 80GB HBM3", small=False) == "gpu-nvidia-h100-80gb-hbm3"
    assert results.file_name("cpu", small=True) == "gpu-cpu-small"


def test_limits_of_a_known_card_come_from_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "name", lambda device: "NVIDIA H200")
    card = cards.limits("cuda")
    assert (card.flops, card.bandwidth, card.source) == (989e12, 4.8e12, "data sheet")


def test_limits_of_another_card_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "matmul_rate", lambda device, dtype: 3.0)
    monkeypatch.setattr(cards, "copy_rate", lambda device: 2.0)
    assert cards.limits("cpu") == cards.GpuLimits(3.0, 2.0, "measured")


def test_a_goal_is_met_from_its_bound_on() -> None:
    lower = [at_least("a", found, "x", 0.5).met for found in (0.4, 0.5, 0.6)]
    upper = [at_most("a", found, "x", 0.5).met for found in (0.4, 0.5, 0.6)]
    assert (lower, upper) == ([False, True, True], [True, True, False])


def test_a_check_fails_only_after_all_were_made() -> None:
    items: list[Item] = [
        at_most("a", 2.0, "", 1.0),
        "a note",
        Measure("b", None, met=False),
        at_most("c", 1.0, "", 1.0),
    ]
    found = []
    with pytest.raises(CheckFailed, match="2 of the checks failed"):
        for item in required(items):
            found.append(item)
    assert found == items


def test_a_later_run_continues_with_what_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "results" / "gpu-x.json"
    assert results.load(path) == {}
    stored = {
        "one": Result("done", 1.5, [at_least("speed", 3.0, "tokens/s", 2.0, reference=4.0), "left out"]),
        "two": Result("cut", 2.0, [Measure("time", 1.0, "s")], "reached its time limit"),
    }
    results.save(path, "today", stored)
    assert results.load(path) == stored
    assert json.loads(path.read_text())["circumstances"] == "today"
    assert results.open_parts([ONE, TWO, THREE], stored, again=False) == [TWO, THREE]
    assert results.open_parts([ONE, TWO, THREE], stored, again=True) == [ONE, TWO, THREE]


def test_the_page_has_a_table_per_part_in_their_order() -> None:
    stored = {
        "two": Result("cut", 2.0, ["left out: flex"], "reached its time limit"),
        "one": Result(
            "done",
            1.5,
            [at_least("speed", 3.0, "tokens/s", 2.0, reference=4.0), at_most("gap", 0.25, "nats", 0.125)],
        ),
    }
    page = results.markdown("today", [ONE, TWO, THREE], stored)
    assert page.startswith("# Check on a GPU\n\ntoday\n\n")
    assert "a step of 120 s, 2,000 tokens/s per GPU, 23% model FLOPs utilisation" in page
    assert page.partition("## ")[2] == (
        "The first\n\n"
        "done (1.5 s).\n\n"
        "| Measure | Found | Reference | Unit     | Goal          | Met        |\n"
        "|---------|-------|-----------|----------|---------------|------------|\n"
        "| speed   | 3     | 4         | tokens/s | >= 2 tokens/s | met        |\n"
        "| gap     | 0.25  |           | nats     | <= 0.125 nats | **missed** |\n\n"
        "## The second\n\n"
        "**cut**: reached its time limit (2 s).\n\n"
        "- left out: flex\n"
    )


def test_an_item_is_shown_as_a_line() -> None:
    assert shown("a note") == "a note"
    assert shown(at_most("gap", 0.25, "nats", 0.125)) == "gap: 0.25 nats (<= 0.125 nats: MISSED)"
    assert shown(Measure("step", 2.0, "s")) == "step: 2 s"
    assert shown(Measure("gap", None, met=False)).startswith("gap: not measured")
