"""`calibrl data check`: the data report of a file on this machine, without the service."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from calibrl.schemas import DataReport
from calibrl.specfile import SpecError
from calibrl_core.data.kept_rows import check_target, write_kept
from calibrl_core.data.report import CheckedData, ReportSettings, check_data
from calibrl_core.data.schema import Columns, DataError, FileData
from calibrl_core.models.token_counts import model_tokens
from calibrl_core.verifiers.registry import Reward


def settings_of(
    rewards: str,
    *,
    model: str | None,
    against: Path | None,
    max_prompt_tokens: int | None,
    max_completion_tokens: int | None,
) -> ReportSettings:
    """Return the settings of a report. `rewards`: types, separated by commas.

    Raises:
        SpecError: a reward does not exist, or the model cannot be read.
    """
    types = [{"type": name.strip()} for name in rewards.split(",") if name.strip()]
    try:
        found = TypeAdapter[list[Reward]](list[Reward]).validate_python(types)
        tokens = model_tokens(model) if model else None
    except ValidationError as error:
        raise SpecError(f"--rewards {rewards!r}: {error.errors()[0]['msg']}") from None
    except DataError as error:
        raise SpecError(str(error)) from None
    return ReportSettings(
        found,
        against=FileData(path=str(against)) if against else None,
        tokens=tokens,
        max_prompt_tokens=max_prompt_tokens,
        max_completion_tokens=max_completion_tokens,
        with_workers=True,
    )


def check(file: Path, columns: dict[str, str], settings: ReportSettings, write: Path | None) -> tuple[DataReport, int]:
    """Return the report of a file, and the number of rows that were written to `write`.

    Raises:
        SpecError: the file cannot be read, or rows cannot be written.
    """
    source = FileData(path=str(file), columns=Columns.model_validate(columns))
    try:
        checked = check_data(source, settings)
        return checked.report, _write(source, checked, write) if write else 0
    except (DataError, OSError) as error:
        raise SpecError(str(error)) from None


def _write(source: FileData, checked: CheckedData, target: Path) -> int:
    if not checked.report.complete:
        raise DataError(f"--write: {source.label} has more than {checked.report.rows:,} rows: split it into files")
    check_target(source, target, names_files=checked.names_files)
    return write_kept(source, checked.dropped, target)
