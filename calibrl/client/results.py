"""Result files of evaluations and audits."""

from collections.abc import Iterator
from pathlib import Path

from calibrl.client.connection import JobId, job_path
from calibrl.client.file_transfer import FileTransfer, Progress, file_path
from calibrl.schemas import Page, StoredFile


class ResultRequests(FileTransfer):
    """Requests for result files of evaluations and audits."""

    def results(self, id: JobId) -> list[StoredFile]:
        """Return the result files of an evaluation or audit."""
        return self._get(Page[StoredFile], job_path(id, "results")).data

    def download_results(self, id: JobId, folder: Path | str, *, progress: Progress | None = None) -> list[Path]:
        """Download the results of an evaluation or audit into a folder, as `download_checkpoint` does."""
        return self._download(self.results(id), job_path(id, "results"), Path(folder), progress)

    def result(self, id: JobId, name: str) -> Iterator[bytes]:
        """Yield a result file of an evaluation or audit in pieces."""
        return self._streamed(file_path(job_path(id, "results"), name))
