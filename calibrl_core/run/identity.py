"""Settings, data and base model that a run must keep when it resumes: those that decide its meaning.

Each checkpoint holds the settings of its run and digests of its data and base model. A resume with other data, or from
another base model, or with another value of a setting in `FIXED`, is refused. Other settings can change, such as steps
and learning rate; the changes are logged. A checkpoint of an earlier version holds nothing to compare with.

The digests are cheap. Of a file they cover name, size and samples of its bytes, so that a few changed bytes can stay
unseen. Of an image they cover its size, its first and its last bytes. The location of data and model does not count.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from calibrl_core.config import BuiltinModel, ModelSource, TrainConfig
from calibrl_core.data.prompts import PromptFormat
from calibrl_core.data.schema import Example
from calibrl_core.data.stored_images import edge_digests
from calibrl_core.data.views import repeats_of
from calibrl_core.distributed.ranks import Ranks

FIXED = (
    *("algorithm.type", "prompts_per_step", "seed", "shuffle_data", "curriculum", "unearnable"),
    *("model.freeze_vision", "optimizer.kind", "model.quantization"),
    *("model.lora.rank", "model.lora.alpha", "model.lora.rslora", "model.lora.dora", "model.lora.targets"),
    *(f"prompts.{name}" for name in PromptFormat.model_fields),
)
_BY_DIGEST = ("model.builtin", "model.seed", "model.path", "data.", "validation.data.")
_WEIGHTS = ("*.safetensors", "*.gguf", "config.json")
_OPTIMIZER = "optimizer"  # the beginning of names of files in a checkpoint that are no part of the model
_BLOCK, _BLOCKS = 4096, 64  # bytes per sample, samples per file: at most 256 KiB are read
_SHOWN = 60  # characters of a value in a message


class ResumeError(ValueError):
    """The run is not the one that wrote the checkpoint; the message names the field and the remedy."""


class RunIdentity:
    """The identity of a run, compared with that of the run that wrote the checkpoint. The first process compares; a
    difference is an error in all.
    """

    def __init__(self, config: TrainConfig, saved: Mapping[str, Any] | None, ranks: Ranks) -> None:
        """Compare the settings and the base model. `saved`: as in the checkpoint, empty if it is of an earlier version;
        None if the run does not resume.

        Raises:
            ResumeError: they differ from those of the checkpoint's run.
        """
        self._ranks, self._before = ranks, (saved or {}).get("digests", {})
        settings = config.model_dump(mode="json")
        # JSON, for the next checkpoint
        self.values: dict[str, Any] = {"settings": settings, "digests": {}, "dropped": {}}
        self._dropped: Mapping[str, list[int]] = (saved or {}).get("dropped", {})
        self.notes: list[str] = []  # sentences on what changed
        if saved == {}:
            self.notes.append("resumes without a comparison of data and base model: the checkpoint names none")
        before = (saved or {}).get("settings", {})
        problems = [
            f"{field} is {_text(now)}, but the run started with {_text(old)}"
            for field in FIXED
            for old, now in [(_value(before, field), _value(settings, field))]
            if old is not ... and old != now
        ]
        self._refuse(problems)
        self._add("model", model_digest(config.model) if ranks.first else None)
        changes = [f"{field} from {_text(old)} to {_text(now)}" for field, old, now in _changes(before, settings)]
        if changes:
            self.notes.append(f"resumes with changed settings: {'; '.join(changes)}")

    def add_data(self, field: str, examples: Sequence[Example]) -> None:
        """Compare the data of a field of the config, `data` or `validation.data`.

        Raises:
            ResumeError: they differ from those of the checkpoint's run.
        """
        self._add(field, data_digest(examples) if self._ranks.first else None)

    def dropped(self, source: int) -> list[int] | None:
        """Return the rows that the run dropped when it started, from 1; None: it starts now. The time of a check is
        limited, so that a later one can find others. `source`: place in the training data, from 0.
        """
        return self._dropped.get(str(source))

    def add_dropped(self, source: int, rows: list[int]) -> None:
        """Keep the rows for a resume."""
        self.values["dropped"][str(source)] = rows

    def _add(self, field: str, digest: str | None) -> None:
        self.values["digests"][field] = digest
        before = self._before.get(field)
        different = None not in (before, digest) and before != digest
        what = "the weights" if field == "model" else "the rows"
        self._refuse([f"{field}: {what} are not those that the run started with"] if different else [])

    def _refuse(self, problems: list[str]) -> None:
        if problems := self._ranks.from_first(problems):
            raise ResumeError(f"{'; '.join(problems)}: restore it, or start a new run in another folder")


def model_digest(source: ModelSource) -> str | None:
    """Return the digest of the model that a run starts from; None if its files are not there."""
    if isinstance(source, BuiltinModel):
        return _hashed([source.builtin, source.seed])
    path = Path(source.path)
    files = [path] if path.is_file() else sorted(file for pattern in _WEIGHTS for file in path.glob(pattern))
    files = [file for file in files if not file.name.startswith(_OPTIMIZER)]
    return _hashed([[file.name, file.stat().st_size, *_samples(file)] for file in files]) if files else None


def data_digest(examples: Sequence[Example]) -> str:
    """Return the digest of examples in their order, without their IDs, which can name a file."""
    digest = sha256()
    for example in examples:
        text = [example.question, example.answer, example.expert, example.data_source]
        turns = [[turn.role, turn.text] for turn in example.earlier]
        digest.update(_hashed([text, turns, edge_digests(example.images)]).encode())
    if (repeats := repeats_of(examples)).max(initial=1) > 1:
        digest.update(repeats.tobytes())
    return digest.hexdigest()


def _samples(file: Path) -> list[str]:
    """Return evenly spaced blocks of a file, from its first to its last bytes."""
    last = max(0, file.stat().st_size - _BLOCK)
    blocks = []
    with file.open("rb") as opened:
        for place in sorted({last * number // (_BLOCKS - 1) for number in range(_BLOCKS)}):
            opened.seek(place)
            blocks.append(opened.read(_BLOCK).hex())
    return blocks


def _hashed(values: Any) -> str:
    return sha256(json.dumps(values).encode()).hexdigest()


def _value(settings: Any, field: str) -> Any:
    """Return the value of a dotted field; None within a part that is None, `...` if the settings do not have it."""
    for name in field.split("."):
        if settings is None:
            return None
        if name not in settings:
            return ...
        settings = settings[name]
    return settings


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings that can change and did: field, value before, value now."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for field in old:
        if field in new and old[field] != new[field] and field not in FIXED and not f"{field}.".startswith(_BY_DIGEST):
            yield field, old[field], new[field]


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _text(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
