"""Problems of plane geometry that take two steps of reasoning; those of `problems` take one. Also to scale."""

import cmath
import math

from calibrl_core.data.builtin.figures import Figure
from calibrl_core.data.builtin.problems import (
    GeometryProblem,
    Rng,
    centroid,
    named_triangle,
    place_randomly,
    random_integer,
    random_names,
    right_sides,
    triangle,
    upright_rectangle,
)


def triangle_area(rng: Rng) -> GeometryProblem:
    """Return a problem that gives the hypotenuse and a leg of a right triangle and asks for its area."""
    (given, other), hypotenuse = right_sides(rng)
    answer = given * other // 2
    a, b, c = names = random_names(rng)  # the right angle is at the first

    def draw(figure: Figure, rng: Rng) -> None:
        corners = place_randomly(rng, [0, complex(given), complex(0, other)])
        named_triangle(figure, corners, names)
        figure.right_angle(*corners)
        figure.beside(str(given), corners[0], corners[1], centroid(corners))
        figure.beside(str(hypotenuse), corners[1], corners[2], centroid(corners))

    return GeometryProblem(
        "area of a right triangle",
        (given, hypotenuse),
        f"What is the area of triangle {a}{b}{c}?",
        answer,
        f"{hypotenuse}^2-{given}^2={other**2}={other}^2. {given}*{other}/2={answer}.",
        f"The angle at {a} is a right one, so {a}{c} squared is {hypotenuse}^2 - {given}^2 = {other**2}, and {a}{c} is "
        f"{other}. The area is half the product of {given} and {other}, which is {answer}.",
        draw,
    )


def rectangle_diagonal(rng: Rng) -> GeometryProblem:
    """Return a problem that gives a side and the diagonal of a rectangle and asks for its perimeter."""
    (given, other), diagonal = right_sides(rng)
    if min(given, other) < 0.5 * max(given, other):  # too narrow to see which line the label inside belongs to
        return rectangle_diagonal(rng)
    answer = 2 * (given + other)

    def draw(figure: Figure, rng: Rng) -> None:
        corners = upright_rectangle(figure, rng, given, other)
        figure.stroke(corners[0], corners[2])
        figure.beside(str(given), corners[0], corners[1], centroid(corners))
        figure.beside(str(diagonal), corners[0], corners[2], corners[1])

    return GeometryProblem(
        "diagonal of a rectangle",
        (given, diagonal),
        "What is the perimeter of the rectangle?",
        answer,
        f"{diagonal}^2-{given}^2={other**2}={other}^2. 2*({given}+{other})={answer}.",
        f"The diagonal cuts the rectangle into two right triangles, so the square of its other side is {diagonal}^2 - "
        f"{given}^2 = {other**2}, and the side is {other}. The perimeter is 2 * ({given} + {other}) = {answer}.",
        draw,
    )


def exterior_angle(rng: Rng) -> GeometryProblem:
    """Return a problem that gives the apex of an isosceles triangle and asks for the angle outside a base corner."""
    base = random_integer(rng, 40, 72)
    apex = 180 - 2 * base
    answer = 180 - base

    def draw(figure: Figure, rng: Rng) -> None:
        *corners, beyond = place_randomly(rng, [*triangle(base, base), 1.6])
        figure.polygon(corners)
        figure.stroke(corners[1], beyond)
        figure.tick(corners[0], corners[2])
        figure.tick(corners[1], corners[2])
        figure.angle(corners[2], corners[0], corners[1], f"{apex}°")
        figure.angle(corners[1], beyond, corners[2], "x")

    return GeometryProblem(
        "exterior angle",
        (apex,),
        "The marked sides of the triangle are equal, and one side is drawn on beyond a corner. What is x, in degrees?",
        answer,
        f"(180-{apex})/2={base}. 180-{base}={answer}.",
        f"The two angles at the base are equal and share what {apex} leaves of 180, so each is {base}. With one of "
        f"them x makes a straight angle, so x = 180 - {base} = {answer}.",
        draw,
    )


def semicircle(rng: Rng) -> GeometryProblem:
    """Return a problem with a triangle over a diameter (Thales) that gives one angle at the diameter and asks for the
    other.
    """
    given = random_integer(rng, 32, 58)
    answer = 90 - given
    a, b, c = names = random_names(rng)  # the first two end the diameter

    def draw(figure: Figure, rng: Rng) -> None:
        center, radius, spin = complex(112, 112), rng.uniform(75, 84), rng.uniform(-math.pi, math.pi)
        side = 1 - 2 * random_integer(rng, 0, 1)
        turns = (math.pi, 0.0, side * 2 * math.radians(given))  # an angle at the centre is twice that at the circle
        corners = [center + cmath.rect(radius, spin + turn) for turn in turns]
        figure.circle(center, radius)
        figure.circle(center, 2)
        figure.polygon(corners)
        for corner, letter in zip(corners, names, strict=True):
            figure.name(letter, corner, away_from=center)
        figure.angle(corners[0], corners[1], corners[2], f"{given}°")

    return GeometryProblem(
        "angle in a semicircle",
        (given,),
        f"{a}{b} is a diameter of the circle. What is the size of the angle at {b}, in degrees?",
        answer,
        f"90-{given}={answer}.",
        f"By Thales the angle at {c} is a right one, since {a}{b} is a diameter. So the other two add up to 90 "
        f"degrees, and the one at {b} is 90 - {given} = {answer}.",
        draw,
    )
