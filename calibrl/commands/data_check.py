"""`calibrl data check`: the data report of a file on this machine, without the service."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from calibrl.schemas import DataReport, TrainSpec, job_spec_adapter
from calibrl.schemas.fault_texts import fault_text
from calibrl.specfile import SpecError, read_spec
from calibrl_core.config import BuiltinModel, PathModel
from calibrl_core.data.kept_rows import check_target, write_kept
from calibrl_core.data.report import CheckedData, ReportSettings, check_data
from calibrl_core.data.schema import DataError, FileData
from calibrl_core.models.token_counts import model_tokens
from calibrl_core.verifiers.registry import Reward


@dataclass(frozen=True)
class Options:
    """Options of the command line; None: not given."""

    file: Path | None
    columns: dict[str, str]
    format: str | None
    rewards: str | None  # types, separated by commas
    model: str | None
    against: Path | None
    max_prompt_tokens: int | None
    max_completion_tokens: int | None


def job_of(path: Path) -> TrainSpec:
    """Return the training job of a spec file.

    Raises:
        SpecError: the file has none.
    """
    try:
        spec = job_spec_adapter.validate_python(read_spec(path, []))
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(f"{path}: {'.'.join(map(str, first['loc']))}: {fault_text(first)}") from None
    if not isinstance(spec, TrainSpec):
        raise SpecError(f"{path}: is no training job: leave out --spec, and name the rewards and FILE")
    return spec


def source_of(options: Options, job: TrainSpec | None) -> FileData:
    """Return the file to report on, with the settings that the job has for it.

    Raises:
        SpecError: no file is named, or an option is invalid.
    """
    known = [source for source in job.sources if isinstance(source, FileData)] if job else []
    named = [one for one in known if options.file is None or Path(one.path) == options.file.resolve()]
    if options.file is None and len(named) != 1:
        listed = ", ".join(one.path for one in known) or "none on this machine"
        raise SpecError(f"name FILE: the job has {len(known)} data files: {listed}")
    changes: dict[str, Any] = {"columns": options.columns} if options.columns else {}
    changes |= {"format": options.format} if options.format else {}
    source = named[0] if named else FileData(path=str(options.file))
    try:
        return FileData.model_validate(source.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(f"{'.'.join(map(str, first['loc']))}: {fault_text(first)}") from None


def settings_of(options: Options, job: TrainSpec | None) -> ReportSettings:
    """Return the settings of a report: those of the command line, and else those of the job.

    Raises:
        SpecError: a reward does not exist, or the model cannot be read.
    """
    validation = job.validation.data if job and job.validation else None
    held_out = validation if isinstance(validation, FileData) else None
    try:
        model = options.model or (_model(job) if job else None)
        tokens = model_tokens(model, job.prompts if job else None) if model else None
    except DataError as error:
        raise SpecError(str(error)) from None
    return ReportSettings(
        _rewards(options.rewards, job),
        against=FileData(path=str(options.against)) if options.against else held_out,
        tokens=tokens,
        max_prompt_tokens=options.max_prompt_tokens or (job.prompts.max_tokens if job else None),
        max_completion_tokens=options.max_completion_tokens or (job.rollout.max_completion_tokens if job else None),
        with_workers=True,
    )


def _rewards(types: str | None, job: TrainSpec | None) -> list[Reward]:
    if types is None and job is not None:
        return list(job.rewards)
    asked = "math" if types is None else types
    try:
        return TypeAdapter[list[Reward]](list[Reward]).validate_python(
            [{"type": name.strip()} for name in asked.split(",") if name.strip()]
        )
    except ValidationError as error:
        raise SpecError(f"--rewards {types!r}: {fault_text(error.errors()[0])}") from None


def _model(job: TrainSpec) -> str | None:
    """Return the model of a job if this machine has it, to count tokens."""
    if isinstance(job.model, BuiltinModel):
        return job.model.builtin
    return job.model.path if isinstance(job.model, PathModel) else None


def check(source: FileData, settings: ReportSettings, write: Path | None) -> tuple[DataReport, int]:
    """Return the report of a file, and the number of rows that were written to `write`.

    Raises:
        SpecError: the file cannot be read, or rows cannot be written.
    """
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
