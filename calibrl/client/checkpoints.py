"""Checkpoints of jobs and their files."""

from collections.abc import Iterator
from pathlib import Path

from calibrl.client.connection import JobId, job_path
from calibrl.client.file_transfer import FileTransfer, Progress
from calibrl.schemas import Checkpoint, CheckpointFiles, Page

TRAINER_FILES = ("optimizer", "trainer.json")  # beginnings of names of files that are no part of the model


class CheckpointRequests(FileTransfer):
    """Requests for checkpoints of jobs."""

    def checkpoints(self, id: JobId) -> list[Checkpoint]:
        """Return the checkpoints of a job."""
        return self._get(Page[Checkpoint], job_path(id, "checkpoints")).data

    def checkpoint(self, id: JobId, step: int) -> CheckpointFiles:
        """Return a checkpoint of a job with its files."""
        return self._get(CheckpointFiles, job_path(id, "checkpoints", str(step)))

    def download_checkpoint(
        self,
        id: JobId,
        step: int,
        folder: Path | str,
        *,
        model_only: bool = False,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Download all files of a checkpoint into a folder. Each file gets its name when it is complete. `model_only`:
        without the state of the optimizer and the trainer, which only a resume needs.

        Called again after a failure, it continues where the first download stopped.
        """
        files = [
            file for file in self.checkpoint(id, step).files if not (model_only and file.name.startswith(TRAINER_FILES))
        ]
        return self._download(files, job_path(id, "checkpoints", str(step), "files"), Path(folder), progress)

    def archive(self, id: JobId, step: int) -> Iterator[bytes]:
        """Yield all files of a checkpoint as one tar file, in pieces."""
        return self._streamed(job_path(id, "checkpoints", str(step), "archive"))
