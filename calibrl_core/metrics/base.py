"""Descriptions of metrics. Torch-free: the API, the CLI, the dashboard and the docs read them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Direction = Literal["up", "down", "none"]

# Placeholders in the name of a metric, and what each can be.
PLACEHOLDERS = {
    "<verifier>": "[^/]+",
    "<n>": "[1-9][0-9]*",
    "<split>": "[^/]+",
    "<setting>": "[^/]+",
    "<rank>": "[0-9]+",
}


@dataclass(frozen=True)
class Metric:
    """One metric, or several of one kind if the name has a placeholder, such as `reward/<verifier>`."""

    name: str  # family/name
    unit: str
    meaning: str  # sentences, the first one a noun phrase
    how_to_read: str = ""  # sentences; empty: the meaning says enough
    direction: Direction = "none"  # where a good run goes; none: no direction is good in itself
    label: str = ""  # short name for narrow places; empty: the name
    interval: bool = False  # also reported as NAME_low and NAME_high, the bounds of its 95 % interval over prompts

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        pattern = re.escape(self.name)
        for placeholder, values in PLACEHOLDERS.items():
            pattern = pattern.replace(re.escape(placeholder), values)
        return re.compile(pattern + ("(_low|_high)?" if self.interval else ""))

    def describes(self, name: str) -> bool:
        """Return true if this is the description of the reported metric `name`."""
        return self._pattern.fullmatch(name) is not None

    @property
    def hint(self) -> str:
        """The sentences to show beside the metric."""
        return f"{self.meaning} {self.how_to_read}".strip()


@dataclass(frozen=True)
class MetricFamily:
    """The metrics of one or more prefixes, in reading order."""

    title: str  # the prefixes: "ratio/, clip/ and kl/"
    metrics: tuple[Metric, ...]
    about: str = ""  # sentences that apply to all of them


def find(name: str, families: Iterable[MetricFamily]) -> Metric | None:
    """Return the description of a reported metric, or None. A full name comes before one with a placeholder."""
    known = [metric for family in families for metric in family.metrics if metric.describes(name)]
    return min(known, key=lambda metric: metric.name != name, default=None)
