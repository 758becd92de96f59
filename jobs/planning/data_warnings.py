"""Warnings of the data reports of a plan: from the first rows of files, which its checks have read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

from calibrl.schemas import KnownData, Notice, TrainSpec
from calibrl_core.data.schema import FileData
from calibrl_core.verifiers.refusals import expert_judges, refusals
from jobs import models
from jobs.files import datasets
from jobs.specs import file_surveys
from jobs.specs.file_surveys import FirstRows
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
    read = [
        (named, file_surveys.first_rows(source, answers=named.needs_answers))
        for named, source in local_files(References.of(spec), known)
    ]
    held_out = [rows.prompts for named, rows in read if named.field == "validation.data"]
    for named, rows in read:
        if named.field == "validation.data":
            continue
        messages = [*(warning.message for warning in rows.warnings), *_wrong_experts(spec, named, rows)]
        if shared := sum(len(rows.prompts & prompts) for prompts in held_out):
            messages.insert(
                0,
                f"{shared} of {len(rows.prompts)} prompts are in the validation data too, whose results then show "
                "memory: remove them from one of the two",
            )
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
    listed = ", ".join(map(str, numbers[:LISTED])) + (" ..." if len(numbers) > LISTED else "")
    yield (
        f"{len(numbers)} of {found.judged} judged experts fail the rewards (rows {listed}), so that the run can learn "
        "to avoid them: correct or remove them"
    )
