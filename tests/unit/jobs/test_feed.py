"""A transaction's row in the feed, and a reader's position in it."""

from typing import Any

import pytest

from jobs.live import StreamPosition
from jobs.models import Event
from jobs.repository.feed import Changes


def test_nothing_but_the_job_itself_has_no_parts() -> None:
    assert Changes().parts() == []


def test_the_parts_are_in_an_order_that_can_be_applied() -> None:
    changes = Changes()
    changes.checkpoints = True
    changes.samples |= {9, 7}
    changes.steps |= {12, 11}
    changes.histograms = {"rareness": {12}, "gap": {11}}
    changes.events += [Event(id=5), Event(id=4)]
    changes.extend_log(10, 20)
    changes.extend_log(20, 25)
    changes.rewind(10)
    changes.rewind(11)
    assert changes.parts() == [
        ["rewound", 10],
        ["events", 4, 5],
        ["metrics", 11, 12],
        ["histograms", 11, 12, ["gap", "rareness"]],
        ["samples", 7, 9],
        ["checkpoints"],
        ["log", 10, 25],
    ]


def test_no_part_spans_more_than_a_hundred_steps_or_64_kib_of_log() -> None:
    changes = Changes(steps={*range(250), 100_000}, log=(1, 140_000))
    assert changes.parts() == [
        ["metrics", 0, 99],
        ["metrics", 100, 199],
        ["metrics", 200, 249],
        ["metrics", 100_000, 100_000],
        ["log", 1, 65_537],
        ["log", 65_537, 131_073],
        ["log", 131_073, 140_000],
    ]


def test_a_deleted_job_leaves_all_its_events() -> None:
    changes = Changes(rewound=-1, log=(0, 0), checkpoints=True, forgotten=True, events=[Event(id=70)])
    assert changes.parts() == [["rewound", -1], ["events", 0, 70], ["checkpoints"], ["log", 0, 0]]


@pytest.mark.parametrize(("text", "numbers"), [("12", 1), ("12.3", 1), ("700-12", 2), ("700-12.3", 2)])
def test_a_place_is_read_as_it_was_written(text: str, numbers: int) -> None:
    assert str(StreamPosition.parse(text, numbers)) == text


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", 1), ("-1", 1), ("1.", 1), (".1", 1), ("1-2", 1), ("1", 2), ("1-2-3", 2), ("²", 1), ("1\n", 1), ("9" * 19, 1)],
)
def test_an_invalid_position_is_refused(text: str, numbers: int) -> None:
    with pytest.raises(ValueError, match="not the id of a frame"):
        StreamPosition.parse(text, numbers)


def test_id_0_is_the_beginning_of_every_stream() -> None:
    assert StreamPosition.parse("0", 1).next_row == (1,)
    assert StreamPosition.parse("0", 2).next_row == (0, 1)


def test_parts_after_a_position() -> None:
    parts: list[list[Any]] = [["events", 1, 2], ["metrics", 1, 1], ["checkpoints"]]
    assert StreamPosition((7,)).next_row == (8,)
    assert StreamPosition((7,), 2).next_row == (7,)
    assert [(str(behind), part[0]) for behind, part in StreamPosition((7,), 2).left_of((7,), parts)] == [
        ("7.3", "checkpoints")
    ]
    assert [str(behind) for behind, _ in StreamPosition((7,), 2).left_of((8,), parts)] == ["8.1", "8.2", "8.3"]
    assert [str(behind) for behind, _ in StreamPosition((7,)).left_of((8,), parts)] == ["8.1", "8.2", "8.3"]
