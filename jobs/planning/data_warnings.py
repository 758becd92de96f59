"""Warnings of the data reports of a plan: from the first rows of files, which its checks have read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from calibrl.schemas import KnownData, Notice, TrainSpec
from calibrl_core.data.files import NO_RATIO
from calibrl_core.data.schema import FileData, HubData
from calibrl_core.verifiers.refusals import OR_DROP, expert_judges, refusals
from jobs import models
from jobs.files import datasets
from jobs.planning.expert_lengths import expert_tokens
from jobs.specs import file_surveys
from jobs.specs.file_surveys import FirstRows, answer_faults
from jobs.specs.references import NamedData, References

EXPERT_SECONDS = 0.3  # of the CPU, to judge the experts of a file
LISTED = 10  # rows in a message


def local_files(references: References, known: Mapping[UUID, models.Dataset]) -> Iterator[tuple[NamedData, FileData]]:
    """Yield the files of a spec that are on this machine, with the files of uploaded datasets. `known`: datasets."""
    for named in references.data:
        source = named.source
        if isinstance(source, KnownData):
            dataset = known.get(source.dataset)
            source = datasets.source(dataset, source) if dataset else source
            if isinstance(source, FileData) and not Path(source.path).is_file():
                continue  # in a remote storage
        if isinstance(source, FileData):
            yield named, source


def data_warnings(spec: TrainSpec, known: Mapping[UUID, models.Dataset]) -> Iterator[Notice]:
    """Yield the warnings of the training data, and of its overlap with the validation data."""
    references = References.of(spec)
    yield from _not_read(references, known)
    read = [
        (named, file_surveys.first_rows(source, answers=named.needs_answers))
        for named, source in local_files(references, known)
    ]
    held_out = [rows for named, rows in read if named.field == "validation.data"]
    for named, rows in read:
        if named.field == "validation.data":
            continue
        messages = [message for others in held_out for message in _shared(rows, others)]
        messages += [warning.message for warning in rows.warnings]
        messages += [*_unearnable(named, rows), *_without_ratio(named, rows)]
        messages += [*_wrong_experts(spec, named, rows), *_cut_experts(spec, rows)]
        first = "" if rows.survey.complete else f"of the first {rows.survey.rows:,} rows: "
        yield from (Notice(field=named.field, message=f"{first}{message}") for message in messages)


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


def _cut_experts(spec: TrainSpec, rows: FirstRows) -> Iterator[str]:
    """Yield a warning of the experts that are longer than a completion, if the tokens can be counted here."""
    if not (spec.algorithm.needs_experts and rows.experts):
        return
    most = spec.rollout.max_completion_tokens
    tokens = expert_tokens(spec.model, spec.project, rows.expert_texts) or ()
    if long := [row for (row, _), count in zip(rows.experts, tokens, strict=False) if count > most]:
        yield (
            f"{len(long)} of {len(tokens)} experts (rows {_listed(long)}) have more than {most} tokens and are cut, so "
            "that none of them teaches its answer: raise rollout.max_completion_tokens or shorten them"
        )


def _not_read(references: References, known: Mapping[UUID, models.Dataset]) -> Iterator[Notice]:
    """Yield a notice of each source whose rows this machine does not have, so that nothing else is said of them."""
    here = {named.field for named, _ in local_files(references, known)}
    for named in references.data:
        dataset = known.get(named.source.dataset) if isinstance(named.source, KnownData) else None
        if isinstance(named.source, HubData) or (dataset is not None and dataset.hub is not None):
            ratio = ": each needs a pass_ratio, or choose another curriculum" if named.ratios != "none" else ""
            text = f"the rows are on the hub, and only the trainer reads them{ratio}"
            yield Notice(field=named.field, message=text)
        elif dataset is not None and named.field not in here:
            text = "the file is in the storage and was not read: make its data report, which brings it to this machine"
            yield Notice(field=named.field, message=text)


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:LISTED])) + (" ..." if len(rows) > LISTED else "")
