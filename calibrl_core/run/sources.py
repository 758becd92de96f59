"""Examples of the sources that a field of the config names: read, reported, checked and mixed."""

from collections.abc import Callable, Sequence
from functools import partial

from calibrl_core import data
from calibrl_core.data.mixture import Mixture
from calibrl_core.data.row_cache import RowCache
from calibrl_core.data.schema import DataSource, Example
from calibrl_core.data.source_facts import SourceFacts
from calibrl_core.run.row_check import all_results


def read_sources(
    field: str,
    sources: Sequence[DataSource],
    seed: int,
    cache: RowCache,
    log: Callable[[str, str], None],
    usable: Callable[[int, DataSource, Sequence[Example]], Sequence[Example]],
    *,
    asks: bool,
    answers: bool,
) -> Sequence[Example]:
    """Return the examples of all sources, with their occurrences per epoch.

    Args:
        field: field of the config, for messages.
        seed: chooses the rows of a weight that is no whole number.
        cache: where the rows are kept.
        log: receives the level and the text of each message.
        usable: returns the rows of a source, by its place from 0, that the run uses. Raises DataError if it cannot use
            them.
        asks: every prompt requests an answer, also that of a chat whose expert states none: without an answer, a
            completion has no reward.
        answers: rows need an answer.

    Raises:
        DataError: rows of some sources are invalid; the message names each of them.
        OSError: files.
    """

    def part(place: int, source: DataSource) -> Sequence[Example]:
        return usable(place, source, read_source(field, source, cache, log, answers=answers))

    parts = all_results(*(partial(part, place, source) for place, source in enumerate(sources)))
    return Mixture(sources, parts, seed, asks=asks)


def read_source(
    field: str, source: DataSource, cache: RowCache, log: Callable[[str, str], None], *, answers: bool
) -> Sequence[Example]:
    """Return the examples of a source, and log its format and columns. Arguments and errors: as of `read_sources`."""
    facts = SourceFacts()
    rows = data.load(source, facts, cache, answers=answers)
    if facts.form is not None:
        log("info", f"{field}: {source.name}: {facts.summary(rows)}")
    return rows
