"""The check of a loaded model, done once per model, machine and installation if the run has a cache folder.

Its result is valid as long as these are the same: the files of the base model, the versions of torch and transformers,
the trainer's own code, the precision, the device, and the settings of model and prompts. A resume with other weights
of the same base model needs no new check, because the check concerns computations, not weights.
"""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from calibrl_core.code_digest import code_digest
from calibrl_core.config import BuiltinModel, ModelSource
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.policy import Policy
from calibrl_core.report import Report
from calibrl_core.rollout.self_check import check_model, limit_of, one_per_kind
from calibrl_core.run.identity import model_digest

_CODE = ("models", "rollout", "data")  # folders of the trainer that decide the result
_TEXTS = ("*.json", "*.jinja", "*.model", "*.txt")  # files of a model folder beside its weights


@dataclass(frozen=True)
class CheckedModel:
    """Result of a check: largest difference of log-probabilities (nats) and its limit, measured at `measured_at`
    (seconds since 1970, UTC).
    """

    difference: float
    limit: float
    measured_at: float


def checked(
    policy: Policy, source: ModelSource, examples: Iterable[Example], report: Report, ranks: Ranks
) -> CheckedModel:
    """Return the result of the check of a model, from the cache folder if it has one. Every process must call it.

    Raises:
        ModelError, DataError, torch.OutOfMemoryError: as `check_model`.
    """
    chosen = list(one_per_kind(examples))
    path = _path(policy, source, chosen, report) if ranks.first else None
    if known := ranks.from_first(_read(path) if path else None):
        return known
    with policy.weights.gathered():
        difference = check_model(policy, chosen)
    result = CheckedModel(difference, limit_of(policy), time.time())
    if path:
        with suppress(OSError):  # the next run checks again
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
            partial.write_text(json.dumps(asdict(result)))
            partial.replace(path)
    return result


def _read(path: Path) -> CheckedModel | None:
    try:
        return CheckedModel(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _path(policy: Policy, source: ModelSource, examples: list[Example], report: Report) -> Path | None:
    """Return the file of a result, named by all that decides it; None without a cache folder or files of the model."""
    digest = model_digest(source)
    if report.cache_dir is None or digest is None:
        return None
    device = torch.cuda.get_device_name() if policy.device.type == "cuda" else policy.device.type
    parts: list[Any] = [
        digest,
        _texts(source),
        source.model_dump(mode="json", exclude={"path"}),
        [torch.__version__, *map(version, _packages(source)), code_digest(*_CODE)],
        [policy.bfloat16, policy.weights.sharded, device, policy.encoder.form.model_dump(mode="json")],
        sorted(min(len(example.images), 2) for example in examples),
    ]
    return report.cache_dir / "checks" / f"{_hashed(parts)}.json"


def _packages(source: ModelSource) -> list[str]:
    return ["transformers", *(["bitsandbytes"] if source.quantization else [])]


def _texts(source: ModelSource) -> list[list[str]]:
    folder = None if isinstance(source, BuiltinModel) else Path(source.path)
    if folder is None or not folder.is_dir():
        return []
    files = sorted(file for pattern in _TEXTS for file in folder.glob(pattern) if file.is_file())
    return [[file.name, sha256(file.read_bytes()).hexdigest()] for file in files]


def _hashed(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
