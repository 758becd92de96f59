"""Problems of plane geometry: numbers, question, answer, an expert's reasoning in two styles, and the figure.

Each problem function takes a random generator and returns a problem whose figure is to scale.
"""

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibrl_core.data.builtin.figures import Figure, fit_to_picture

Rng = np.random.Generator
Names = tuple[str, str, str]
NAMES: tuple[Names, ...] = (("A", "B", "C"), ("D", "E", "F"), ("K", "L", "M"), ("P", "Q", "R"), ("X", "Y", "Z"))
TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (20, 21, 29))  # sides of right triangles: legs, then hypotenuse


@dataclass(frozen=True)
class GeometryProblem:
    """One problem, and how to draw it: each call of `draw` chooses another position and orientation."""

    kind: str
    numbers: tuple[int, ...]  # everything that the answer depends on; the given numbers come first
    question: str
    answer: int
    terse: str  # reasoning, as short as possible
    wordy: str  # the same reasoning in sentences
    draw: Callable[[Figure, Rng], None]


def triangle_angle(rng: Rng) -> GeometryProblem:
    """Return a problem that gives two angles of a triangle and asks for the third."""
    first, second = random_integer(rng, 35, 90), random_integer(rng, 35, 90)
    third = 180 - first - second
    if not 35 <= third <= 110:
        return triangle_angle(rng)
    a, b, c = names = random_names(rng)

    def draw(figure: Figure, rng: Rng) -> None:
        corners = place_randomly(rng, triangle(first, second))
        named_triangle(figure, corners, names)
        figure.angle(corners[0], corners[1], corners[2], f"{first}°")
        figure.angle(corners[1], corners[0], corners[2], f"{second}°")

    return GeometryProblem(
        "triangle angle",
        (first, second),
        f"In triangle {a}{b}{c}, what is the size of the angle at {c}, in degrees?",
        third,
        f"180-{first}-{second}={third}.",
        f"The angles of a triangle add up to 180 degrees. Those at {a} and {b} are {first} and {second}, so the one at "
        f"{c} is 180 - {first} - {second} = {third}.",
        draw,
    )


def right_triangle(rng: Rng) -> GeometryProblem:
    """Return a problem that gives two sides of a right triangle and asks for the third."""
    legs, hypotenuse = right_sides(rng)
    a, b, c = names = random_names(rng)  # the right angle is at the first
    asked = random_integer(rng, 0, 2)
    sides = (*legs, hypotenuse)
    answer, given = sides[asked], [side for index, side in enumerate(sides) if index != asked]
    one, other = given
    sign = "+" if asked == 2 else "-"
    first, second = (one, other) if asked == 2 else (other, one)

    def draw(figure: Figure, rng: Rng) -> None:
        corners = place_randomly(rng, [0, complex(legs[0]), complex(0, legs[1])])
        named_triangle(figure, corners, names)
        figure.right_angle(*corners)
        for index, (start, end) in enumerate(((0, 1), (0, 2), (1, 2))):
            if index != asked:
                figure.beside(str(sides[index]), corners[start], corners[end], centroid(corners))

    return GeometryProblem(
        "right triangle",
        (one, other, asked),
        f"In triangle {a}{b}{c}, what is the length of side {(a + b, a + c, b + c)[asked]}?",
        answer,
        f"{first}^2{sign}{second}^2={answer**2}={answer}^2.",
        f"The angle at {a} is a right one, so by Pythagoras the square of the side is {first}^2 {sign} {second}^2 = "
        f"{first**2} {sign} {second**2} = {answer**2}, and its length is {answer}.",
        draw,
    )


def rectangle(rng: Rng) -> GeometryProblem:
    """Return a problem that gives two sides of a rectangle and asks for its area or its perimeter."""
    width, height = random_integer(rng, 4, 30), random_integer(rng, 3, 20)
    if not 0.4 <= height / width <= 0.95:
        return rectangle(rng)
    area = random_integer(rng, 0, 1)
    answer = width * height if area else 2 * (width + height)

    def draw(figure: Figure, rng: Rng) -> None:
        corners = upright_rectangle(figure, rng, width, height)
        figure.beside(str(width), corners[0], corners[1], centroid(corners))
        figure.beside(str(height), corners[1], corners[2], centroid(corners))

    return GeometryProblem(
        "rectangle",
        (width, height, area),
        f"What is the {'area' if area else 'perimeter'} of the rectangle?",
        answer,
        f"{width}*{height}={answer}." if area else f"2*({width}+{height})={answer}.",
        f"The sides are {width} and {height}, and the "
        + (
            f"area is their product, {answer}."
            if area
            else f"perimeter is twice their sum of {width + height}: {answer}."
        ),
        draw,
    )


def straight_line(rng: Rng) -> GeometryProblem:
    """Return a problem with a ray that divides a straight angle: one part is given, the other is asked for."""
    given = random_integer(rng, 40, 140)
    answer = 180 - given

    def draw(figure: Figure, rng: Rng) -> None:
        at = rng.uniform(-0.2, 0.2)
        left, right, vertex, end = place_randomly(
            rng, [-1, 1, complex(at), at + cmath.rect(0.9, math.radians(given))], spin=40
        )
        figure.stroke(left, right)
        figure.stroke(vertex, end)
        figure.angle(vertex, right, end, f"{given}°")
        figure.angle(vertex, left, end, "x")

    return GeometryProblem(
        "straight line",
        (given,),
        "A ray stands on a straight line. What is x, in degrees?",
        answer,
        f"180-{given}={answer}.",
        f"The two angles make a straight one together, 180 degrees, so x = 180 - {given} = {answer}.",
        draw,
    )


def parallel_lines(rng: Rng) -> GeometryProblem:
    """Return a problem with a line across two parallel lines: one angle is given, one at the other crossing is asked
    for.
    """
    given = random_integer(rng, 50, 130)
    equal = random_integer(rng, 0, 1)
    answer = given if equal else 180 - given

    def draw(figure: Figure, rng: Rng) -> None:
        slope = cmath.rect(1, math.radians(given))
        high, low = slope * 0.5 / slope.imag, -slope * 0.5 / slope.imag  # crossings, 1 apart in height
        tips = [1.7 * high, 1.7 * low]
        ends = [point + side for point in (high, low) for side in (-1, 1)]
        high, low, top, bottom, *ends = place_randomly(rng, [high, low, *tips, *ends], spin=30)
        for start, end in (ends[:2], ends[2:]):
            figure.stroke(start, end)
            figure.arrow(start, end, at=0.92)
        figure.stroke(top, bottom)
        figure.angle(high, ends[1], top, f"{given}°")
        figure.angle(low, ends[3 if equal else 2], high, "x")

    reason = "They are corresponding angles" if equal else "Its neighbour is the corresponding angle"
    return GeometryProblem(
        "parallel lines",
        (given, equal),
        "The lines with arrows are parallel. What is x, in degrees?",
        answer,
        f"x={given}." if equal else f"180-{given}={answer}.",
        f"{reason} at parallel lines, so "
        + (f"x is {given}, too." if equal else f"that one is {given}, and x = 180 - {given} = {answer}."),
        draw,
    )


def circle(rng: Rng) -> GeometryProblem:
    """Return a problem that gives the radius of a circle and asks for its diameter, or the reverse."""
    radius = random_integer(rng, 2, 60)
    from_radius = random_integer(rng, 0, 1)
    given, answer = (radius, 2 * radius) if from_radius else (2 * radius, radius)

    def draw(figure: Figure, rng: Rng) -> None:
        size = rng.uniform(55, 90)
        center = complex(*rng.uniform(size + 8, 216 - size, size=2))
        out = cmath.rect(size, rng.uniform(-math.pi, math.pi))
        start, end = (center if from_radius else center - out), center + out
        figure.circle(center, size)
        figure.circle(center, 2)
        figure.stroke(start, end)
        figure.beside(str(given), start, end, away_from=start + 1j * out)

    asked = "diameter" if from_radius else "radius"
    return GeometryProblem(
        "circle",
        (given, from_radius),
        f"The dot is the centre of the circle. What is the {asked} of the circle?",
        answer,
        f"2*{given}={answer}." if from_radius else f"{given}/2={answer}.",
        f"The line of length {given} is a {'radius' if from_radius else 'diameter'}. A diameter is twice a radius, so "
        f"the {asked} is {answer}.",
        draw,
    )


def isosceles(rng: Rng) -> GeometryProblem:
    """Return a problem that gives one angle of an isosceles triangle and asks for another."""
    base = random_integer(rng, 36, 72)
    apex = 180 - 2 * base
    from_base = random_integer(rng, 0, 1)
    a, b, c = names = random_names(rng)  # the apex is the last
    given, answer = (base, apex) if from_base else (apex, base)

    def draw(figure: Figure, rng: Rng) -> None:
        corners = place_randomly(rng, triangle(base, base))
        named_triangle(figure, corners, names)
        figure.tick(corners[0], corners[2])
        figure.tick(corners[1], corners[2])
        vertex, *others = corners if from_base else (corners[2], *corners[:2])
        figure.angle(vertex, others[0], others[1], f"{given}°")

    return GeometryProblem(
        "isosceles triangle",
        (given, from_base),
        f"In triangle {a}{b}{c}, the marked sides are equal. What is the size of the angle at {c if from_base else b}, "
        "in degrees?",
        answer,
        f"180-2*{given}={answer}." if from_base else f"(180-{given})/2={answer}.",
        f"Opposite equal sides the angles at {a} and {b} are equal. "
        + (
            f"Both are {given}, which leaves 180 - {2 * given} = {answer} for {c}."
            if from_base
            else f"They share what the angle of {given} at {c} leaves of 180, so each is {180 - given} / 2 = {answer}."
        ),
        draw,
    )


def random_integer(rng: Rng, low: int, high: int) -> int:
    """Return a random integer from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))


def random_names(rng: Rng) -> Names:
    """Return letters for a triangle's corners."""
    return NAMES[random_integer(rng, 0, len(NAMES) - 1)]


def right_sides(rng: Rng) -> tuple[tuple[int, int], int]:
    """Return random legs and the hypotenuse of a right triangle with integer sides up to 60."""
    short, long, hypotenuse = TRIPLES[random_integer(rng, 0, len(TRIPLES) - 1)]
    times = random_integer(rng, 1, 60 // hypotenuse)
    legs = (short, long) if random_integer(rng, 0, 1) else (long, short)
    return (legs[0] * times, legs[1] * times), hypotenuse * times


def triangle(first: float, second: float) -> list[complex]:
    """Return the corners of a triangle with these angles, in degrees, at its first and second corner; the side between
    them has length 1.
    """
    third = math.radians(180 - first - second)
    reach = math.sin(math.radians(second)) / math.sin(third)
    return [0, 1, cmath.rect(reach, math.radians(first))]


def place_randomly(rng: Rng, points: list[complex], spin: float = 180) -> list[complex]:
    """Return the points, randomly mirrored, rotated by up to `spin` degrees in either direction, and fitted to the
    picture.
    """
    turn = cmath.rect(1, math.radians(rng.uniform(-spin, spin)))
    mirrored = [point.conjugate() for point in points] if random_integer(rng, 0, 1) else points
    return fit_to_picture([point * turn for point in mirrored])


def upright_rectangle(figure: Figure, rng: Rng, width: float, height: float) -> list[complex]:
    """Draw a rectangle in landscape or portrait orientation; return its corners. The first side has length `width`."""
    turn = (1, 1j)[random_integer(rng, 0, 1)]
    corners = fit_to_picture([point * turn for point in (0, width, complex(width, height), complex(0, height))])
    figure.polygon(corners)
    return corners


def named_triangle(figure: Figure, corners: list[complex], names: Names) -> None:
    """Draw a triangle with the letters of its corners."""
    figure.polygon(corners)
    for corner, name in zip(corners, names, strict=True):
        figure.name(name, corner, away_from=centroid(corners))


def centroid(points: list[complex]) -> complex:
    """Return the mean of the points."""
    return sum(points) / len(points)
