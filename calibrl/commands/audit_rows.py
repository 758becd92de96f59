"""`calibrl audit --write`: the rows that an audit keeps, from the file on this machine, from a dataset, or the hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from calibrl.client import Client
from calibrl.schemas import DataChoice, Job, KnownData
from calibrl.specfile import SpecError
from calibrl_core.data.kept_rows import WrittenRows, write_chosen
from calibrl_core.data.schema import AUTO, DataError, FileData, HubData

ROWS_FILE = "audit.jsonl"  # see `calibrl_core.audit`
_CHOICE: TypeAdapter[DataChoice] = TypeAdapter(DataChoice)


def write(client: Client, job: Job, target: Path) -> WrittenRows:
    """Write the audited rows with the verdict use, and those with a restated expert in its place.

    Raises:
        SpecError: the data cannot be read here, or the file not be written.
        CalibrlError: the service has no rows of the audit, or no such dataset.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = _source(client, job, folder)
        client.download_results(job.id, folder)
        try:
            return write_chosen(source, _chosen(folder / ROWS_FILE), target)
        except (DataError, OSError) as error:
            raise SpecError(f"--write: {error}") from None


def _source(client: Client, job: Job, folder: Path) -> FileData | HubData:
    """Return the audited data. The file of a dataset is downloaded into the folder."""
    choice = _CHOICE.validate_python(job.spec["data"])
    if isinstance(choice, KnownData):
        return _dataset(client, choice, folder)
    if isinstance(choice, FileData):
        if not Path(choice.path).exists():
            raise SpecError(f"--write: {choice.path} is not on this machine: run the command where the data is")
        return choice
    if isinstance(choice, HubData):
        return choice
    raise SpecError(f"--write: the rows of {choice.name} are generated, so there is no file to take rows from")


def _dataset(client: Client, choice: KnownData, folder: Path) -> FileData | HubData:
    dataset = client.dataset(choice.dataset)
    columns = dataset.columns
    if choice.answer is not None:
        columns = columns.model_copy(update={"answer": choice.answer})
    settings = {"columns": columns, "rows": choice.rows} | ({} if choice.format == AUTO else {"format": choice.format})
    if dataset.hub is not None:
        return HubData.model_validate(dataset.hub.model_dump() | settings)
    path = client.download_dataset(dataset.id, folder / f"rows.{dataset.format}")
    return FileData.model_validate({"path": str(path), "title": dataset.name, "image_files": False} | settings)


def _chosen(file: Path) -> Iterator[tuple[int, str | None]]:
    """Yield the numbers of the rows to keep, each with its restated expert or None."""
    with file.open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            if row["verdict"] == "use" or row["rewrite"] is not None:
                yield row["row"], row["rewrite"]
