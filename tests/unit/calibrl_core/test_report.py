"""The event file: whole lines, numbers that JSON can't say, images once."""

import json
import math

from calibrl_core.report import EventFile


def lines(folder):
    return (folder / "events.jsonl").read_text().splitlines()


def test_numbers_that_json_cannot_say(tmp_path):
    EventFile(tmp_path).emit("metrics", step=1, values={"a": math.nan, "b": -math.inf, "c": [math.inf, 1.5]})
    event = json.loads(lines(tmp_path)[0])
    assert event["values"] == {"a": "NaN", "b": "-Infinity", "c": ["Infinity", 1.5]}
    assert event["type"] == "metrics"


def test_half_a_line_left_by_a_killed_run_spoils_only_itself(tmp_path):
    first = EventFile(tmp_path)
    first.emit("start", step=0)
    first.close()
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"type": "metr')
    second = EventFile(tmp_path)
    second.emit("start", step=7)
    kept = [json.loads(line) for line in lines(tmp_path) if line.endswith("}")]
    assert [event["step"] for event in kept] == [0, 7]
    assert len(lines(tmp_path)) == 3


def test_an_image_is_kept_once(tmp_path):
    report = EventFile(tmp_path)
    assert report.save_image(b"png") == report.save_image(b"png")
    (path,) = (tmp_path / "images").iterdir()
    assert path.read_bytes() == b"png"
