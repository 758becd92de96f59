"""Output of `calibrl reproduce`: the comparison of two series as lines of text."""

from collections.abc import Iterator, Sequence

from calibrl.schemas import DifferentField, SeriesComparison
from calibrl.views.terminal import plain

SHOWN = 20  # lines of each kind


def comparison_lines(found: SeriesComparison) -> Iterator[str]:
    """Yield the result, the first metrics that differ, and what else differs."""
    what = f"{found.steps} steps and {found.metrics} metrics"
    if not found.metrics:
        yield "nothing to compare: a job has no metrics"
    elif found.deviations:
        first = found.deviations[0]
        yield f"{what} compared: they differ first at step {first.step} in {first.metric}"
    elif not found.equal:
        yield f"{what} are equal bit for bit, but the weights of step {found.checkpoint_step} differ"
    else:
        weights = f", with the weights of step {found.checkpoint_step}" if found.checkpoint_equal else ""
        yield f"{what} are equal bit for bit{weights}"
    if not found.complete:
        yield "not all was compared: a job has not ended, or one has more steps than the other"
    for one in found.deviations[:SHOWN]:
        size = "" if one.relative is None else f" (relative difference {one.relative:.2g})"
        yield f"  step {one.step}: {plain(one.metric)}: {one.first} against {one.second}{size}"
    if len(found.deviations) > SHOWN:
        yield f"  and {len(found.deviations) - SHOWN} more metrics"
    yield from _fields("settings", found.settings)
    yield from _fields("surroundings", found.surroundings)


def _fields(title: str, fields: Sequence[DifferentField]) -> Iterator[str]:
    if fields:
        yield f"different {title}:"
    for one in fields[:SHOWN]:
        yield f"  {plain(one.field)}: {plain(one.first)} against {plain(one.second)}"
    if len(fields) > SHOWN:
        yield f"  and {len(fields) - SHOWN} more"
