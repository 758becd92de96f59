"""Drawn geometry: every answer is measured again in the figure, nothing overlaps, and the parts share no problem."""

import cmath
import io
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibrl_core import data
from calibrl_core.data.builtin import digits, geometry
from calibrl_core.data.builtin.figures import ARC, SIDE, Figure, Label, text_size
from calibrl_core.data.builtin.problems import GeometryProblem
from calibrl_core.data.schema import SPLITS, BuiltinData, Example, Split
from calibrl_core.verifiers.base import extract_answer, follows_format

ROWS = 84  # twelve of each kind


def load(split: Split, rows: int) -> Sequence[Example]:
    return data.load(BuiltinData(builtin="geometry", split=split, rows=rows))


def solution(example: Example) -> str:
    assert example.expert is not None
    return example.expert


def segments(figure: Figure) -> list[Any]:
    return [pair for stroke in figure.strokes for pair in itertools.pairwise(stroke)]


def distance(point: complex, start: complex, end: complex) -> float:
    share = ((point - start) / (end - start)).real
    return abs(point - start - (end - start) * min(1, max(0, share)))


def polygon(figure: Figure) -> list[complex]:
    """Corners of the triangle or rectangle."""
    return next(stroke[:-1] for stroke in figure.strokes if len(stroke) in (4, 5) and stroke[0] == stroke[-1])


def radius(stroke: list[complex]) -> float | None:
    """Return the radius of the circle through a stroke's first three points, or None if it is straight."""
    if len(stroke) < 3:
        return None
    a, b, c = stroke[:3]
    area = abs(((b - a).conjugate() * (c - a)).imag) / 2
    return abs(a - b) * abs(b - c) * abs(c - a) / (4 * area) if area > 1e-6 else None


def arcs(figure: Figure) -> Iterator[tuple[list[complex], float]]:
    """Each angle's mark: its stroke and its size in degrees."""
    for stroke in figure.strokes:
        if len(stroke) > 3 and math.isclose(radius(stroke) or 0, ARC, rel_tol=1e-6):
            steps = [2 * math.asin(abs(a - b) / (2 * ARC)) for a, b in itertools.pairwise(stroke)]
            yield stroke, math.degrees(sum(steps))


def corner(figure: Figure, letter: str) -> tuple[complex, complex, complex]:
    """The polygon's corner that a letter names, and its two neighbours."""
    corners = polygon(figure)
    (label,) = [label for label in figure.labels if label.text == letter]
    index = min(range(len(corners)), key=lambda index: abs(corners[index] - label.center))
    return corners[index], corners[index - 1], corners[(index + 1) % len(corners)]


def unit(figure: Figure, lines: Sequence[Any]) -> float:
    """Return the pixels per length 1, from every number beside a line."""
    units: list[float] = []
    for label in figure.labels:
        if label.text.isdigit():
            start, end = min(lines, key=lambda line: abs((line[0] + line[1]) / 2 - label.center))
            units.append(abs(end - start) / int(label.text))
    assert units and max(units) - min(units) < 1e-6
    return units[0]


def measured(problem: GeometryProblem, figure: Figure) -> float:
    """The answer, read off the drawing with ruler and protractor."""
    question = problem.question
    if "What is x" in question:
        (label,) = [label for label in figure.labels if label.text == "x"]
        return min(arcs(figure), key=lambda arc: abs(arc[0][len(arc[0]) // 2] - label.center))[1]
    if at := re.search(r"the angle at (\w)", question):
        vertex, *others = corner(figure, at[1])
        first, second = (point - vertex for point in others)
        return abs(math.degrees(cmath.phase(first / second)))
    if "circle" in question:
        (line,) = [stroke for stroke in figure.strokes if len(stroke) == 2]
        size = max(radius(stroke) or 0 for stroke in figure.strokes)
        return (2 if "diameter" in question else 1) * size / unit(figure, [line])
    corners = polygon(figure)
    lines = list(itertools.pairwise([*corners, corners[0]]))
    if "diagonal" in problem.kind:
        lines.append((corners[0], corners[2]))
    scale = unit(figure, lines)
    if side := re.search(r"length of side (\w)(\w)", question):
        return abs(corner(figure, side[1])[0] - corner(figure, side[2])[0]) / scale
    sides = [abs(b - a) for a, b in lines[: len(corners)]]
    if "perimeter" in question:
        return sum(sides) / scale
    assert "area" in question
    return abs(sum((a.conjugate() * b).imag for a, b in lines[: len(corners)])) / 2 / scale**2


@pytest.mark.parametrize("split", SPLITS["geometry"])
def test_every_answer_is_the_measure_in_the_drawing(split: Split) -> None:
    kinds = set()
    for row in range(ROWS):
        problem, figure = geometry.draw_problem(split, row)
        assert measured(problem, figure) == pytest.approx(problem.answer, rel=1e-6), problem.question
        kinds.add(problem.kind)
    assert len(kinds) == len(geometry.PARTS[split].kinds)


@pytest.mark.parametrize("split", ["train", "test-hard"])
def test_every_angle_is_marked_between_lines_and_labelled_with_its_size(split: Split) -> None:
    for row in range(ROWS):
        _, figure = geometry.draw_problem(split, row)
        marks = list(arcs(figure))
        for stroke, size in marks:
            for end in (stroke[0], stroke[-1]):
                assert min(distance(end, a, b) for a, b in segments(figure) if a not in stroke) < 1e-6
            sizes = [label for label in figure.labels if label.text == "x" or "°" in label.text]
            nearest = min(sizes, key=lambda label: abs(label.center - stroke[len(stroke) // 2]))
            assert nearest.text in ("x", f"{size:.0f}°")
            assert len(sizes) == len(marks)


@pytest.mark.parametrize("split", SPLITS["geometry"])
def test_labels_are_drawn_and_lie_apart(split: Split) -> None:
    for row, example in enumerate(load(split, 42)):
        _, figure = geometry.draw_problem(split, row)
        pixels = np.asarray(Image.open(io.BytesIO(example.images[0])))
        assert pixels.shape == (SIDE, SIDE) and (pixels[0] == 255).all() and (pixels[:, -1] == 255).all()
        for label in figure.labels:
            left, top = label.center.real - label.width / 2, label.center.imag - label.height / 2
            box = pixels[round(top) : round(top + label.height), round(left) : round(left + label.width)]
            assert 0.05 < (box < 128).mean() < 0.6
        for one, other in itertools.combinations(figure.labels, 2):
            assert not one.overlaps(other)
        assert not any(label.touches(a, b) for label in figure.labels for a, b in segments(figure))
    assert text_size("8")[1] >= 11


def test_labels_detect_overlaps_and_touching_lines() -> None:
    label = Label("x", 10 + 10j, 4, 2)
    assert label.overlaps(Label("y", 13 + 11j, 4, 2))
    assert not label.overlaps(Label("y", 15 + 10j, 4, 2)) and not label.overlaps(Label("y", 10 + 13j, 4, 2))
    assert label.touches(0 + 10j, 20 + 10j) and label.touches(7 + 7j, 12 + 12j) and label.touches(10 + 10j, 11 + 10j)
    assert not label.touches(0 + 12j, 20 + 12j) and not label.touches(0 + 10j, 7 + 10j)
    assert not label.touches(12.5 + 0j, 12.5 + 20j) and not label.touches(5 + 10j, 10 + 15j)


def test_a_figure_with_a_crossed_or_covered_label_is_not_clear() -> None:
    figure = Figure()
    figure.stroke(50 + 50j, 150 + 50j)
    figure.beside("12", 50 + 50j, 150 + 50j, away_from=100 + 100j)
    assert figure.labels[0].center.imag < 50 and figure.is_clear()
    figure.stroke(100 + 20j, 100 + 100j)
    assert not figure.is_clear()
    figure.strokes.pop()
    figure.beside("13", 60 + 50j, 150 + 50j, away_from=100 + 100j)
    assert not figure.is_clear()
    figure.labels.pop()
    figure.name("A", 10 + 112j, away_from=112 + 112j)
    assert not figure.is_clear()  # it leaves the picture


def equations(text: str) -> Iterator[list[Any]]:
    """Every `a+b=c` in a text, as the values of its sides."""
    for found in re.findall(r"[\d(][\d\s()+*/^-]*(?:=[\d\s()+*/^-]+)+", text):
        yield [eval(side.replace("^", "**")) for side in found.split("=")]


@pytest.mark.parametrize("split", SPLITS["geometry"])
def test_experts_reason_rightly_in_two_styles(split: Split) -> None:
    examples = load(split, 28)
    terse = data.load(BuiltinData(builtin="geometry", split=split, rows=28, experts="terse"))
    for example in [*examples, *terse]:
        expert = solution(example)
        assert extract_answer(expert) == example.answer and follows_format(expert)
        for sides in equations(expert):
            assert len(set(sides)) == 1, expert
    assert len([sides for example in examples for sides in equations(solution(example))]) > 14
    assert [one.expert == other.expert for one, other in zip(examples, terse, strict=True)] == [True, False] * 14
    assert all(len(solution(one)) <= len(solution(other)) for one, other in zip(terse, examples, strict=True))


def test_numbers_are_in_the_picture_only() -> None:
    assert not any(re.search(r"\d", example.question) for split in SPLITS["geometry"] for example in load(split, 28))


def test_the_parts_share_no_problem() -> None:
    asked = {}
    sizes: dict[Split, int] = {"train": 500, "validation": 128, "test": 256}
    for split, rows in sizes.items():
        problems = [geometry.draw_problem(split, row)[0] for row in range(rows)]
        asked[split] = {(problem.kind, problem.numbers) for problem in problems}
        answers: dict[Any, float] = {}
        for problem in problems:  # the numbers are all that the answer depends on
            assert answers.setdefault((problem.kind, problem.numbers), problem.answer) == problem.answer
    for one, other in itertools.combinations(asked.values(), 2):
        assert not one & other
    assert len(asked["train"]) > 250


def test_a_row_is_the_same_every_time_in_any_subset() -> None:
    first = load("test", 10)
    assert first == load("test", 10)
    assert first[:3] == load("test", 3)
    assert len({example.images for example in first}) == 10
    assert first[0].id == "geometry/test/0" and first[0].data_source == "triangle angle"
    assert len(data.load(BuiltinData(builtin="geometry", split="validation"))) == 128
    assert BuiltinData(builtin="geometry", split="test").name == "geometry-test"  # not that of the digits


def test_a_split_of_the_other_dataset_is_refused() -> None:
    with pytest.raises(
        ValueError, match="geometry has no such split; choose one of train, validation, test, test-hard"
    ):
        BuiltinData(builtin="geometry", split="test-noise")
    with pytest.raises(ValueError, match="digits has no such split"):
        BuiltinData(builtin="digits", split="test-hard")


@pytest.mark.parametrize(("builtin", "parts"), [("digits", digits.PARTS), ("geometry", geometry.PARTS)])
def test_settings_give_the_number_of_rows(builtin: str, parts: dict[str, Any]) -> None:
    for split, part in parts.items():
        source = BuiltinData.model_validate({"builtin": builtin, "split": split})
        assert source.row_count == part.rows
        assert source.model_copy(update={"rows": 7}).row_count == 7
