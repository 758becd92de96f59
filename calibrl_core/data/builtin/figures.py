"""Plane figures with labels, to scale. Points are complex numbers: pixels from the left, plus i times pixels from the
top.
"""

import cmath
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

SIDE = 224  # pixels per side of the picture
MARGIN = 40  # pixels around the figure, for labels
FINER = 2  # factor by which figures are drawn larger, then averaged down, for smooth lines
STROKE = 2  # pixels
FONT_SIZE = 17  # pixels
GAP = 5  # pixels between a label and the line or point that it names
ARC = 15  # pixels, radius of the arc that marks an angle
ARC_STEP = math.radians(10)


@dataclass(frozen=True)
class Label:
    """A text and the bounding box of its ink."""

    text: str
    center: complex
    width: float
    height: float

    def overlaps(self, other: "Label") -> bool:
        """Return if the boxes of two labels overlap."""
        apart = self.center - other.center
        return abs(apart.real) < (self.width + other.width) / 2 and abs(apart.imag) < (self.height + other.height) / 2

    def touches(self, start: complex, end: complex) -> bool:
        """Return if a segment crosses the box: some part of it is within the box in both axes."""
        entered, left = 0.0, 1.0
        for offset, step, half in (
            ((start - self.center).real, (end - start).real, self.width / 2),
            ((start - self.center).imag, (end - start).imag, self.height / 2),
        ):
            if abs(step) < 1e-9:
                if abs(offset) >= half:
                    return False
                continue
            bounds = sorted(((-half - offset) / step, (half - offset) / step))
            entered, left = max(entered, bounds[0]), min(left, bounds[1])
        return entered < left


class Figure:
    """A drawing: strokes and labels."""

    def __init__(self) -> None:
        self.strokes: list[list[complex]] = []
        self.labels: list[Label] = []

    def stroke(self, *points: complex) -> None:
        """Add a line through the points."""
        self.strokes.append(list(points))

    def polygon(self, points: Sequence[complex]) -> None:
        """Add a closed line through the points."""
        self.stroke(*points, points[0])

    def circle(self, center: complex, radius: float) -> None:
        """Add a circle."""
        self._arc(center, radius, 0.0, 2 * math.pi)

    def angle(self, vertex: complex, first: complex, second: complex, text: str = "") -> None:
        """Add an arc between the directions of two points, and a text on its bisector that touches neither side."""
        start, turn = cmath.phase(first - vertex), cmath.phase((second - vertex) / (first - vertex))
        self._arc(vertex, ARC, start, start + turn)
        if not text:
            return
        width, height = text_size(text)
        bisector = cmath.rect(1, start + turn / 2)
        beyond_arc = ARC + GAP + _reach(bisector, width, height)
        sides = (1j * (point - vertex) / abs(point - vertex) for point in (first, second))
        beyond_sides = max(_reach(normal, width, height) + GAP for normal in sides) / math.sin(abs(turn) / 2)
        self._write(text, vertex + bisector * max(beyond_arc, beyond_sides))

    def right_angle(self, vertex: complex, first: complex, second: complex) -> None:
        """Add the square that marks a right angle."""
        one, other = (10 * (point - vertex) / abs(point - vertex) for point in (first, second))
        self.stroke(vertex + one, vertex + one + other, vertex + other)

    def tick(self, start: complex, end: complex) -> None:
        """Add a short line across the middle of a side: sides with one are equal."""
        across = 5j * (end - start) / abs(end - start)
        self.stroke((start + end) / 2 - across, (start + end) / 2 + across)

    def arrow(self, start: complex, end: complex, at: float) -> None:
        """Add a chevron on a line, at the fraction `at` of its length: lines with one are parallel."""
        along = (end - start) / abs(end - start)
        tip = start + (end - start) * at
        self.stroke(tip - along * (6 + 5j), tip, tip - along * (6 - 5j))

    def beside(self, text: str, start: complex, end: complex, away_from: complex) -> None:
        """Add a text next to the middle of a line, on the side that `away_from` is not on."""
        normal = 1j * (end - start) / abs(end - start)
        if ((away_from - start) * normal.conjugate()).real > 0:
            normal = -normal
        self._write(text, (start + end) / 2 + normal * (GAP + _reach(normal, *text_size(text))))

    def name(self, text: str, point: complex, away_from: complex) -> None:
        """Add a point's letter, on its side opposite to `away_from`."""
        outward = (point - away_from) / abs(point - away_from)
        self._write(text, point + outward * (GAP + _reach(outward, *text_size(text))))

    def is_clear(self) -> bool:
        """Return if no label leaves the picture, covers another or is crossed by a line."""
        edge = SIDE - 2 * STROKE
        for index, label in enumerate(self.labels):
            far = label.center - complex(SIDE / 2, SIDE / 2)
            if abs(far.real) + label.width / 2 > edge / 2 or abs(far.imag) + label.height / 2 > edge / 2:
                return False
            if any(label.overlaps(other) for other in self.labels[:index]):
                return False
            lines = ((a, b) for stroke in self.strokes for a, b in pairwise(stroke))
            if any(label.touches(a, b) for a, b in lines):
                return False
        return True

    def png(self) -> bytes:
        """Return the picture as PNG, SIDE x SIDE, black on white."""
        image = Image.new("L", (SIDE * FINER, SIDE * FINER), 255)
        draw = ImageDraw.Draw(image)
        for stroke in self.strokes:
            points = [(point.real * FINER, point.imag * FINER) for point in stroke]
            draw.line(points, fill=0, width=STROKE * FINER, joint="curve")
        for label in self.labels:
            at = (label.center.real * FINER, label.center.imag * FINER)
            draw.text(at, label.text, font=_font(), fill=0, anchor="mm")
        buffer = io.BytesIO()
        image.reduce(FINER).save(buffer, format="PNG", compress_level=1)  # a third of the time, a quarter more bytes
        return buffer.getvalue()

    def _arc(self, center: complex, radius: float, start: float, end: float) -> None:
        steps = math.ceil(abs(end - start) / ARC_STEP)
        self.stroke(*(center + cmath.rect(radius, start + (end - start) * step / steps) for step in range(steps + 1)))

    def _write(self, text: str, center: complex) -> None:
        self.labels.append(Label(text, center, *text_size(text)))


def fit_to_picture(points: Sequence[complex]) -> list[complex]:
    """Return the points, moved and scaled together so that they fill the picture within its margin."""
    left, right = min(point.real for point in points), max(point.real for point in points)
    top, bottom = min(point.imag for point in points), max(point.imag for point in points)
    scale = (SIDE - 2 * MARGIN) / max(right - left, bottom - top)
    middle = complex(left + right, top + bottom) / 2
    return [complex(SIDE / 2, SIDE / 2) + (point - middle) * scale for point in points]


@cache
def text_size(text: str) -> tuple[float, float]:
    """Return width and height of a text's ink, in pixels of the picture."""
    left, top, right, bottom = _font().getbbox(text, anchor="mm")
    return (right - left) / FINER, (bottom - top) / FINER


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE * FINER)


def _reach(direction: complex, width: float, height: float) -> float:
    """Return how far a box of this size extends from its middle in a direction (of length 1)."""
    return (abs(direction.real) * width + abs(direction.imag) * height) / 2
