"""Curves that become a frame of pandas."""

from typing import TYPE_CHECKING, Any

from calibrl import schemas
from calibrl.client.errors import CalibrlError

if TYPE_CHECKING:
    import pandas


class Curves(schemas.Curves):
    """Metrics of one or more jobs, in buckets that begin at the same steps."""

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a frame with a row per bucket of a series: the columns `job_id` and `name`, then the fields of
        `Series`; NaN: no finite value.

        Raises:
            CalibrlError: pandas is not installed.
        """
        pandas = imported_pandas()
        fields = [field for field in schemas.Series.model_fields if field not in ("job_id", "name")]
        columns: dict[str, list[object]] = {field: [] for field in ("job_id", "name", *fields)}
        for one in self.series:
            columns["job_id"] += [str(one.job_id)] * len(one.start)
            columns["name"] += [one.name] * len(one.start)
            for field in fields:
                columns[field] += getattr(one, field)
        frame = pandas.DataFrame(columns)
        numbers = dict.fromkeys(("start", "first_step", "last_step", "count", "non_finite"), "int64")
        frame = frame.astype(numbers | dict.fromkeys(("min", "max", "mean", "last"), "float64"))
        return frame.assign(ts=pandas.to_datetime(frame["ts"], utc=True))


def imported_pandas() -> Any:
    """Return the module pandas, which the client does not require.

    Raises:
        CalibrlError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise CalibrlError("pandas is not installed: `pip install pandas`") from error
    return pandas
