"""Origin of the model of a spec, through the jobs that it names."""

from pathlib import Path

from sqlalchemy.orm import Session

from calibrl.schemas import HubModel, JobModel, ModelChoice, TrainSpec, job_spec_adapter
from calibrl_core.config import BuiltinModel, PathModel
from jobs.files import artifacts
from jobs.planning.model_shapes import UnknownShape
from jobs.repository import checkpoints, jobs

MAX_ORIGINS = 32  # maximum jobs through which the origin of a model is followed


def origin(session: Session, model: ModelChoice) -> BuiltinModel | PathModel | HubModel | Path:
    """Return what a model is loaded from. A checkpoint of a job: its folder on this machine; without one, the origin of
    the model of that job, whose shape and tokenizer are the same.

    Raises:
        NotFound: a job does not exist.
        UnknownShape: a job is no training, or the origin is too many jobs away.
    """
    for _ in range(MAX_ORIGINS):
        if not isinstance(model, JobModel):
            return model
        row = checkpoints.choose(session, model.from_job, model.checkpoint)
        folder = artifacts.find_checkpoint(row) if row else None
        if folder and (folder / "config.json").is_file():
            return folder
        spec = job_spec_adapter.validate_python(jobs.get(session, model.from_job).spec)
        if not isinstance(spec, TrainSpec):
            raise UnknownShape(f"job {model.from_job} is no training")
        model = spec.model
    raise UnknownShape(f"its origin is more than {MAX_ORIGINS} jobs away")
