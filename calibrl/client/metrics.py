"""Metrics per step or as curves with a limited number of points, histograms, and exports."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.client.curves import Curves, imported_pandas
from calibrl.client.errors import CalibrlError
from calibrl.client.notebook import drawn
from calibrl.schemas import Histogram, Job, MetricName, MetricRow, Page

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

ExportFormat = Literal["csv", "parquet", "tensorboard"]
PAGE = 5000  # steps


def _listed(names: Sequence[str]) -> str:
    """Return names as the API reads them: separated by commas, with commas of a name escaped."""
    return ",".join(name.replace("%", "%25").replace(",", "%2C") for name in names)


class MetricRequests(Connection):
    """Metrics per step or as curves with a limited number of points, histograms, and exports."""

    def metrics(
        self, id: JobId, *, names: list[str] | None = None, after_step: int = -1, limit: int = 1000
    ) -> Page[MetricRow]:
        """Return metrics of steps after `after_step`, ascending; all names, or the given ones."""
        joined = _listed(names) if names is not None else None
        return self._get(Page[MetricRow], job_path(id, "metrics"), names=joined, after_step=after_step, limit=limit)

    def all_metrics(self, id: JobId, names: list[str] | None = None, *, after_step: int = -1) -> "Metrics":
        """Return metrics of all steps after `after_step`, read on demand; all names, or the given ones."""
        return Metrics(self, id, names, after_step)

    def metric_names(self, id: JobId) -> list[MetricName]:
        """Return the names of the metrics of a job with the last value of each."""
        return self._get(Page[MetricName], job_path(id, "metrics", "names")).data

    def series(
        self,
        jobs: JobId | Job | Sequence[JobId | Job],
        names: str | Sequence[str],
        *,
        points: int = 1000,
        from_step: int = 0,
        to_step: int | None = None,
        width: int | None = None,
    ) -> Curves:
        """Return curves of at most 32 jobs and 64 metrics (`reward/*`: a family), each with at most `points` buckets.

        A bucket has minimum and maximum, so no spike is lost. `width`: steps per bucket, a power of two; it replaces
        `points` (see `Curves`).
        """
        job_list = [jobs] if isinstance(jobs, UUID | str | Job) else jobs
        ids = ",".join(str(job.id if isinstance(job, Job) else job) for job in job_list)
        joined = names if isinstance(names, str) else _listed(names)
        limits = {"points": points, "from_step": from_step, "to_step": to_step, "width": width}
        return self._get(Curves, "/v1/metrics", jobs=ids, names=joined, **limits)

    def histograms(
        self,
        id: JobId,
        name: str,
        *,
        after_step: int = -1,
        limit: int = 1000,
        points: int | None = None,
        width: int | None = None,
    ) -> Page[Histogram]:
        """Return one histogram per step after `after_step`, ascending.

        With `points`, neighbouring histograms are added up, so that at most `points` cover all these steps.
        """
        bounds = {"after_step": after_step, "limit": limit, "points": points, "width": width}
        return self._get(Page[Histogram], job_path(id, "histograms"), name=name, **bounds)

    def exported(self, id: JobId, format: ExportFormat) -> Iterator[bytes]:
        """Yield the content that `export` writes, in pieces."""
        if format == "tensorboard":
            return self._streamed(job_path(id, "exports", "tensorboard"))
        return self._streamed(job_path(id, "metrics"), {"format": format})

    def export(self, id: JobId, format: ExportFormat, path: Path) -> Path:
        """Write a job's metrics to a file, which gets its name when it is complete; `tensorboard`: an event file.

        Raises:
            CalibrlError: the service refuses or does not answer, or the file cannot be written.
        """
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                for data in self.exported(id, format):
                    file.write(data)
            part.replace(path)
        except OSError as error:
            raise CalibrlError(f"{path} can't be written: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)
        return path


class Metrics:
    """Metrics of a job per step. Iteration reads one page at a time; `rows` and `to_pandas` read all."""

    def __init__(self, client: MetricRequests, job: JobId, names: list[str] | None, after_step: int) -> None:
        self._client, self._job, self._names, self._after = client, job, names, after_step

    def __iter__(self) -> Iterator[MetricRow]:
        after, more = self._after, True
        while more:
            page = self._client.metrics(self._job, names=self._names, after_step=after, limit=PAGE)
            yield from page.data
            more = page.has_more
            after = page.data[-1].step if page.data else after

    @property
    def rows(self) -> list[MetricRow]:
        """Metrics of all steps, in ascending order."""
        return list(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a frame with a row per step (the index), a column `ts` and a column per metric; NaN: no value.

        Raises:
            CalibrlError: pandas is not installed.
        """
        pandas = imported_pandas()
        rows = self.rows
        names = sorted({name for row in rows for name in row.values})
        columns = {name: [float(row.values.get(name, "nan")) for row in rows] for name in names}
        index = pandas.Index([row.step for row in rows], name="step", dtype="int64")
        frame = pandas.DataFrame(columns, index=index, dtype="float64")
        frame.insert(0, "ts", pandas.to_datetime([row.ts for row in rows], utc=True), allow_duplicates=True)
        return frame

    def plot(self) -> "Figure":
        """Return a figure of matplotlib with one chart per metric over the steps; notebooks show it.

        Raises:
            CalibrlError: matplotlib is not installed, there are no such metrics yet, or more than 60.
        """
        return drawn(self.rows)
