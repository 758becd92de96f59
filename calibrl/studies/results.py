"""Files of finished runs, one per run: with them a study continues on another machine, and its figures can be kept."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from calibrl.client import Client
from calibrl.schemas import RecordedRun, Study
from calibrl.specfile import SpecError

SUFFIX = ".json.gz"


def read_results(folder: Path) -> Iterator[RecordedRun]:
    """Yield the runs in the files of a folder; a folder that does not exist has none.

    Raises:
        SpecError: a file cannot be read, or is not a finished run.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            yield RecordedRun.model_validate_json(gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise SpecError(f"{path}: not a finished run of a study ({reason}); remove the file") from None


def write_new_results(client: Client, study: Study, folder: Path) -> list[Path]:
    """Write the finished runs of a study that have no file yet, and return the paths of the new files.

    Raises:
        CalibrlError: a request failed.
        SpecError: a file cannot be written.
    """
    written = []
    for run in client.study_runs(study.id):
        if run.recorded:
            continue
        path = folder / f"{run.arm}.seed-{run.seed}.{run.digest}{SUFFIX}"
        if path.exists():
            continue
        _write(path, client.study_run(study.id, run.arm, run.seed))
        written.append(path)
    return written


def _write(path: Path, run: RecordedRun) -> None:
    text = json.dumps(run.model_dump(mode="json"), separators=(",", ":"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(gzip.compress(text.encode(), mtime=0))
        part.replace(path)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
