"""The built-in geometry: drawn figures with labelled angles and lengths; the question asks for one of them.

All numbers that the answer depends on are in the picture only. A problem, that is its kind with its numbers, belongs to
one of train, validation and test, so that no two parts share a problem. `test-hard` takes two steps of reasoning
instead of one.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibrl_core.data.builtin import hard_problems, problems
from calibrl_core.data.builtin.experts import with_experts_of, write_expert
from calibrl_core.data.builtin.figures import Figure
from calibrl_core.data.builtin.problems import GeometryProblem, Rng
from calibrl_core.data.schema import BuiltinData, Example, Split

SEED = 20197
SHARES = {"train": 80, "validation": 10, "test": 10}  # of a hundred problems of a kind
LAYOUTS = 20  # attempts per problem before another is drawn: few orientations suit a narrow triangle
KINDS = (
    problems.triangle_angle,
    problems.right_triangle,
    problems.rectangle,
    problems.straight_line,
    problems.parallel_lines,
    problems.circle,
    problems.isosceles,
)
HARD_KINDS = (
    hard_problems.triangle_area,
    hard_problems.rectangle_diagonal,
    hard_problems.exterior_angle,
    hard_problems.semicircle,
)


@dataclass(frozen=True)
class GeometrySplit:
    """Settings of one split."""

    seed: int
    rows: int
    kinds: tuple[Callable[[Rng], GeometryProblem], ...] = KINDS


PARTS: dict[Split, GeometrySplit] = {
    "train": GeometrySplit(1, 2048),
    "validation": GeometrySplit(2, 128),
    "test": GeometrySplit(3, 256),
    "test-hard": GeometrySplit(4, 256, HARD_KINDS),
}


def load(source: BuiltinData) -> list[Example]:
    """Return the examples of one split, always the same in the same order; each takes one or two milliseconds."""
    part = PARTS[source.split]
    rows = [_example(source, row) for row in range(min(source.rows or part.rows, part.rows))]
    return with_experts_of(source.experts, rows)


def draw_problem(split: Split, row: int) -> tuple[GeometryProblem, Figure]:
    """Return the problem of a row with its figure; a function of both arguments alone."""
    part = PARTS[split]
    rng = np.random.default_rng([SEED, part.seed, row])
    make = part.kinds[row % len(part.kinds)]
    while True:
        problem = make(rng)
        if part.kinds is KINDS and split_of(problem) != split:
            continue
        for _ in range(LAYOUTS):
            figure = Figure()
            problem.draw(figure, rng)
            if figure.is_clear():
                return problem, figure


def split_of(problem: GeometryProblem) -> str:
    """Return the split that a problem of KINDS belongs to."""
    place = zlib.crc32(f"{problem.kind} {problem.numbers}".encode()) % 100
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    raise AssertionError("the shares add up to a hundred")


def _example(source: BuiltinData, row: int) -> Example:
    problem, figure = draw_problem(source.split, row)
    return Example(
        id=f"geometry/{source.split}/{row}",
        question=problem.question,
        answer=str(problem.answer),
        images=(figure.png(),),
        expert=write_expert(source.experts, row, terse=problem.terse, wordy=problem.wordy, answer=problem.answer),
        data_source=problem.kind,
    )
