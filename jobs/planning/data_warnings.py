"""Warnings of the data reports of a plan: from the first rows of files, which its checks have read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from calibrl.schemas import AnySpec, Notice, TrainSpec
from calibrl_core.data.files import NO_RATIO, survey_problems
from calibrl_core.data.schema import FileData
from calibrl_core.verifiers.refusals import OR_DROP, expert_judges, refusals
from jobs import models
from jobs.files import hub_rows
from jobs.planning.expert_lengths import expert_tokens
from jobs.planning.local_rows import LocalRows, hub_sources, local_rows, resolved, rows_of_plan
from jobs.specs.file_surveys import FirstRows, answer_faults
from jobs.specs.references import NamedData, References

EXPERT_SECONDS = 0.3  # of the CPU, to judge the experts of a file
LISTED = 10  # rows in a message


def data_warnings(
    spec: AnySpec, known: Mapping[UUID, models.Dataset], tokenizer: Path | None = None
) -> Iterator[Notice]:
    """Yield why the trainer refuses rows of the hub, which no submission reads, and for a training the warnings of its
    data and of their overlap with the validation data.

    Args:
        known: the datasets of the spec.
        tokenizer: counts the tokens of experts. None: they are not counted.
    """
    references = References.of(spec)
    yield from _not_on_this_machine(references, known)
    read = [(rows, rows.first()) for rows in rows_of_plan(spec, references, known)]
    held_out = [found for rows, found in read if rows.named.field == "validation.data"]
    for rows, found in read:
        named, messages = rows.named, list[str]()
        if rows.of_hub:
            yield from _refused(rows, found)
        if isinstance(spec, TrainSpec) and named.field != "validation.data":
            messages += [message for others in held_out for message in _shared(found, others)]
            messages += [warning.message for warning in found.warnings]
            messages += [*_unearnable(named, found), *_without_ratio(named, found)]
            messages += [*_wrong_experts(spec, named, found), *_cut_experts(spec, found, tokenizer)]
        first = "" if found.survey.complete else f"of the first {found.survey.rows:,} rows: "
        yield from (Notice(field=named.field, message=f"{first}{message}") for message in messages)


def _refused(rows: LocalRows, found: FirstRows) -> Iterator[Notice]:
    """Yield why the trainer refuses the rows. `_without_ratio` says what they lack."""
    named = rows.named
    for fault in survey_problems(rows.file, found.survey, needs_experts=named.needs_experts, drops=named.drops):
        yield Notice(field=named.field, message=f"the trainer refuses the data: {fault}")


def _wrong_experts(spec: TrainSpec, named: NamedData, rows: FirstRows) -> Iterator[str]:
    """Yield warnings of the experts that the rewards refuse, and of the rewards that were not asked, if the algorithm
    learns from experts and rewards.
    """
    if not (spec.algorithm.needs_experts and named.rewards):
        return
    asked, not_asked = expert_judges(named.rewards, with_workers=False)
    if not_asked and rows.experts:
        yield not_asked
    inputs = (seen for _, seen in rows.experts)
    found = refusals(asked, inputs, seconds=EXPERT_SECONDS, with_workers=False)
    if not found.labels:
        return
    numbers = [rows.experts[place][0] for place in sorted(found.labels)]
    yield (
        f"{len(numbers)} of {found.judged} judged experts fail the rewards (rows {_listed(numbers)}), so that the run "
        "can learn to avoid them: correct or remove them"
    )


def _unearnable(named: NamedData, rows: FirstRows) -> Iterator[str]:
    """Yield a warning of the rows whose answers no completion can earn. A submission refuses those of a file, unless
    they are dropped.
    """
    faults, places = answer_faults(rows.survey, named.rewards), dict(rows.survey.answers)
    numbers = sorted(row for answer in faults for row in places[answer])
    if not numbers:
        return
    reason = next(fault for answer, fault in faults.items() if numbers[0] in places[answer])
    count = f"{len(numbers)} of {rows.survey.rows} rows ({_listed(numbers)})"
    yield (
        f"{count} are dropped: {reason}"
        if named.drops_unearnable
        else f"the trainer refuses {count}: {reason}{OR_DROP}"
    )


def _without_ratio(named: NamedData, rows: FirstRows) -> Iterator[str]:
    """Yield a warning of the rows that lack the pass ratio of the curriculum, if a submission accepts them."""
    if lacking := rows.survey.lacking(named.ratios):
        exception = ", unless it drops them" if named.drops else ""
        yield f"the trainer refuses {lacking} of {rows.survey.rows} rows{exception}: they have {NO_RATIO}"


def _shared(rows: FirstRows, held_out: FirstRows) -> Iterator[str]:
    """Yield warnings of the prompts that the validation data has too, and of other prompts with one of its images."""
    if shared := len(rows.prompts & held_out.prompts):
        yield (
            f"{shared} of {len(rows.prompts)} prompts are in the validation data too, whose results then show memory: "
            "remove them from one of the two"
        )
    known = {image for image, _ in held_out.images}
    if seen := {prompt for image, prompt in rows.images if image in known} - held_out.prompts:
        yield (
            f"{len(seen)} of {len(rows.prompts)} prompts have an image of the validation data with another question: "
            "split the data by image"
        )


def _cut_experts(spec: TrainSpec, rows: FirstRows, tokenizer: Path | None) -> Iterator[str]:
    """Yield a warning of the experts that are longer than a completion, if the tokens can be counted here."""
    if not (spec.algorithm.needs_experts and rows.experts and tokenizer):
        return
    most = spec.rollout.max_completion_tokens
    tokens = expert_tokens(tokenizer, rows.expert_texts) or ()
    if long := [row for (row, _), count in zip(rows.experts, tokens, strict=False) if count > most]:
        yield (
            f"{len(long)} of {len(tokens)} experts (rows {_listed(long)}) have more than {most} tokens and are cut, so "
            "that none of them teaches its answer: raise rollout.max_completion_tokens or shorten them"
        )


def _not_on_this_machine(references: References, known: Mapping[UUID, models.Dataset]) -> Iterator[Notice]:
    """Yield a notice of each source whose rows this machine does not have, so that nothing else is said of them."""
    here = {rows.named.field for rows in local_rows(references.data, known)}
    for named, source in hub_sources(references.data, known):
        if named.field not in here:
            ratio = ": each needs a pass_ratio, or choose another curriculum" if named.ratios != "none" else ""
            sample = hub_rows.sample(source)
            reason = f" ({sample.fault})" if sample else ""
            text = f"the rows are on the hub and were not read here{reason}; the trainer reads them{ratio}"
            yield Notice(field=named.field, message=text)
    for named in references.data:
        if named.field not in here and isinstance(resolved(named, known), FileData):
            text = "the file is in the storage and was not read: make its data report, which brings it to this machine"
            yield Notice(field=named.field, message=text)


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:LISTED])) + (" ..." if len(rows) > LISTED else "")
