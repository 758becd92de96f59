"""Sources of a spec whose rows this machine has: files, files of uploaded datasets, and first rows of the hub."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from calibrl.schemas import AnySpec, KnownData, TrainSpec
from calibrl_core.data.schema import FileData, HubData
from jobs import models
from jobs.files import datasets, hub_rows
from jobs.specs import file_surveys
from jobs.specs.file_surveys import FirstRows
from jobs.specs.references import NamedData, References


@dataclass(frozen=True)
class LocalRows:
    """Rows of a source as a file of this machine. `whole`: the source has no other rows. `of_hub`: it is on the hub,
    and a submission does not read it.
    """

    named: NamedData
    file: FileData
    whole: bool = True
    of_hub: bool = False

    def first(self) -> FirstRows:
        """Return facts about the first rows."""
        found = file_surveys.first_rows(self.file, answers=self.named.needs_answers)
        if self.whole:
            return found
        return replace(found, survey=replace(found.survey, complete=False))


def local_rows(data: Iterable[NamedData], known: Mapping[UUID, models.Dataset]) -> Iterator[LocalRows]:
    """Yield the sources whose rows are here. `known`: the datasets of the spec."""
    for named in data:
        source = resolved(named, known)
        if isinstance(source, HubData):
            sample = hub_rows.sample(source)
            if sample is not None and sample.file is not None:
                yield LocalRows(named, sample.file, whole=sample.whole, of_hub=True)
        elif source is not None and (isinstance(named.source, FileData) or Path(source.path).is_file()):
            yield LocalRows(named, source)  # not: an upload in a remote storage


def rows_of_plan(spec: AnySpec, references: References, known: Mapping[UUID, models.Dataset]) -> list[LocalRows]:
    """Return the rows here that a plan looks at: of a training all, of other jobs those that no check has read."""
    found = local_rows(references.data, known)
    return [rows for rows in found if isinstance(spec, TrainSpec) or not isinstance(rows.named.source, FileData)]


def hub_sources(data: Iterable[NamedData], known: Mapping[UUID, models.Dataset]) -> Iterator[tuple[NamedData, HubData]]:
    """Yield the sources on the hub. `known`: the datasets of the spec."""
    for named in data:
        if isinstance(source := resolved(named, known), HubData):
            yield named, source


def resolved(named: NamedData, known: Mapping[UUID, models.Dataset]) -> FileData | HubData | None:
    """Return the file or the dataset of the hub that a source names; None: it is generated, or is not known."""
    source = named.source
    if isinstance(source, KnownData):
        dataset = known.get(source.dataset)
        return datasets.source(dataset, source) if dataset else None
    return source if isinstance(source, FileData | HubData) else None
