"""Data reports of datasets, in the process of the API: of the first rows, within limits of memory and time."""

from collections.abc import Sequence

from calibrl.schemas import DataReport, KnownData
from calibrl_core.data.files import CHECKED_IMAGE_BYTES, CHECKED_ROWS
from calibrl_core.data.report import ReportLimits, ReportSettings, check_data
from calibrl_core.data.schema import DataError, FileData
from calibrl_core.verifiers.registry import Reward
from jobs import models
from jobs.errors import Conflict, FieldError, Invalid
from jobs.files import datasets
from jobs.postgres_text import storable

# Of each of two sources; the pixels are those of both.
LIMITS = ReportLimits(CHECKED_ROWS, pixels=10_000_000, image_bytes=CHECKED_IMAGE_BYTES, seconds=0.7)


def report(dataset: models.Dataset, against: models.Dataset | None, rewards: Sequence[Reward]) -> DataReport:
    """Return the report of a dataset's first rows. Reads files: hold no transaction meanwhile.

    Raises:
        Conflict: a dataset has no file in the service.
        Invalid: the file of the validation data cannot be read.
        StorageUnavailable: a file is not available.
    """
    held_out = _file(against) if against else None
    settings = ReportSettings(rewards, against=held_out, limits=LIMITS)
    try:
        found = check_data(_file(dataset), settings).report
    except DataError as error:
        raise Invalid("The validation data cannot be read.", (FieldError("against", str(error)),)) from error
    return DataReport.model_validate(storable(found.model_dump(mode="json")))  # columns can have any name


def _file(dataset: models.Dataset) -> FileData:
    source = datasets.source(dataset, KnownData(dataset=dataset.id))
    if not isinstance(source, FileData):
        raise Conflict(f"Dataset {dataset.id} has no file in the service: download it, and use `calibrl data check`.")
    for file in datasets.files({dataset.id: dataset}):
        for _ in datasets.fetch_to_machine(file):
            pass
    return source
