"""Lengths of experts in tokens, for a plan: with the tokenizer of a model that is on this machine."""

from functools import lru_cache
from pathlib import Path

from calibrl.schemas import HubModel, ModelChoice
from calibrl_core.config import PathModel
from jobs.files.hub_models import HubSnapshot
from jobs.files.tokenizer_process import TokenizerProcess, TokenizerRefusal, tokenizer_file


def expert_tokens(model: ModelChoice, project: str, experts: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the number of tokens of each expert, at most those that the trainer counts; None if they cannot be counted
    here: the model is not on this machine, or has no tokenizer.json. `project`: of the job.
    """
    if isinstance(model, PathModel):
        folder = Path(model.path)
    elif isinstance(model, HubModel) and model.revision:
        folder = HubSnapshot(model.hub, model.revision, project).path
    else:
        return None
    try:
        file = tokenizer_file(folder)
        status = file.stat()
    except (TokenizerRefusal, OSError):
        return None
    return _counted(file, status.st_size, status.st_mtime_ns, experts)


@lru_cache(64)
def _counted(file: Path, size: int, changed: int, experts: tuple[str, ...]) -> tuple[int, ...] | None:
    try:
        with TokenizerProcess(file) as tokens:
            return tuple(map(tokens.expert, experts))
    except TokenizerRefusal:
        return None
