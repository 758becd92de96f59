"""Data reports of datasets, in the process of the API: of the first rows, within limits of memory and time."""

from contextlib import ExitStack
from pathlib import Path

from calibrl.schemas import DataReport, KnownData, ReportRequest
from calibrl_core.data.files import CHECKED_IMAGE_BYTES, CHECKED_ROWS
from calibrl_core.data.report import ReportLimits, ReportSettings, check_data
from calibrl_core.data.schema import AUTO, DataError, FileData
from jobs import models
from jobs.errors import Conflict, FieldError, Invalid
from jobs.files import datasets
from jobs.files.tokenizer_process import TokenizerProcess, TokenizerRefusal, tokenizer_file
from jobs.postgres_text import storable

# Of each of two sources; the pixels are those of both.
LIMITS = ReportLimits(CHECKED_ROWS, pixels=10_000_000, image_bytes=CHECKED_IMAGE_BYTES, seconds=0.7)


def report(dataset: models.Dataset, against: models.Dataset | None, request: ReportRequest) -> DataReport:
    """Return the report of a dataset's first rows. `against`: the dataset of that field of the request. Reads files:
    hold no transaction meanwhile.

    Raises:
        Conflict: a dataset has no file in the service.
        Invalid: the file of the validation data, or the tokenizer of the model, cannot be read.
        StorageUnavailable: a file is not available.
    """
    source, held_out = _file(dataset, request.format or AUTO), _file(against) if against else None
    try:
        with ExitStack() as stack:
            model = Path(request.model) if request.model else None
            settings = ReportSettings(
                request.rewards,
                against=held_out,
                tokens=stack.enter_context(TokenizerProcess(tokenizer_file(model))) if model else None,
                max_prompt_tokens=request.max_prompt_tokens,
                max_completion_tokens=request.max_completion_tokens,
                limits=LIMITS,
            )
            found = check_data(source, settings).report
    except DataError as error:
        raise Invalid("The validation data cannot be read.", (FieldError("against", str(error)),)) from error
    except TokenizerRefusal as error:
        raise Invalid("The tokens cannot be counted.", (FieldError("model", str(error)),)) from error
    return DataReport.model_validate(storable(found.model_dump(mode="json")))  # columns can have any name


def _file(dataset: models.Dataset, form: str = AUTO) -> FileData:
    source = datasets.source(dataset, KnownData(dataset=dataset.id, format=form))
    if not isinstance(source, FileData):
        raise Conflict(f"Dataset {dataset.id} has no file in the service: download it, and use `calibrl data check`.")
    for file in datasets.files({dataset.id: dataset}):
        for _ in datasets.fetch_to_machine(file):
            pass
    return source
