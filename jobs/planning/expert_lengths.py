"""Lengths of experts in tokens, for a plan: with the tokenizer of a model that is on this machine."""

from functools import lru_cache
from pathlib import Path

from sqlalchemy.orm import Session

from calibrl.schemas import AnySpec, HubModel, JobModel, TrainSpec
from calibrl_core.config import PathModel
from jobs.errors import NotFound
from jobs.files.hub_models import HubSnapshot
from jobs.files.tokenizer_process import TokenizerProcess, TokenizerRefusal, kept_tokenizer_file, tokenizer_file
from jobs.planning.model_shapes import UnknownShape
from jobs.planning.origins import origin
from jobs.repository import jobs


def expert_tokenizer(session: Session, spec: AnySpec, visible_projects: frozenset[str] | None) -> Path | None:
    """Return the tokenizer that counts the experts of a training: of its model folder, of a downloaded model of the
    hub, or of the checkpoint from which it starts. None: it learns from no experts, or this machine has no
    tokenizer.json that the job can load.

    Args:
        visible_projects: projects that the caller can see; None: all. Jobs of others count as missing.
    """
    if not (isinstance(spec, TrainSpec) and spec.algorithm.needs_experts):
        return None
    try:
        if isinstance(spec.model, JobModel):
            jobs.require_visible(session, [spec.model.from_job], visible_projects)
        found = origin(session, spec.model)
        if isinstance(found, PathModel):
            return tokenizer_file(Path(found.path))
        if isinstance(found, HubModel):
            return kept_tokenizer_file(HubSnapshot(found.hub, str(found.revision), spec.project).path)
        return kept_tokenizer_file(found) if isinstance(found, Path) else None
    except (NotFound, UnknownShape, TokenizerRefusal, OSError):
        return None


def expert_tokens(tokenizer: Path, experts: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the number of tokens of each expert, at most those that the trainer counts; None if the tokenizer cannot
    count them.
    """
    try:
        status = tokenizer.stat()
    except OSError:
        return None
    return _counted(tokenizer, status.st_size, status.st_mtime_ns, experts)


@lru_cache(64)
def _counted(file: Path, size: int, changed: int, experts: tuple[str, ...]) -> tuple[int, ...] | None:
    try:
        with TokenizerProcess(file) as tokens:
            return tuple(map(tokens.expert, experts))
    except TokenizerRefusal:
        return None
