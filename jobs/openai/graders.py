"""OpenAI's graders as rewards, and back: one implementation judges for both."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from calibrl.schemas.graders import (
    Grader,
    GraderMessage,
    GraderPart,
    LabelModelGrader,
    MultiGrader,
    PythonGrader,
    ScoreModelGrader,
    SingleGrader,
    StringCheckGrader,
    TextSimilarityGrader,
)
from calibrl_core.verifiers.services import RewardServiceError, Services
from calibrl_core.verifiers.templates import PLACEHOLDER, parts_of

ANSWER = re.compile(r"\s*\{\{\s*sample\.output_text\s*\}\}\s*")
COLUMN = re.compile(r"\s*\{\{\s*item\.([^{}\s]{1,200})\s*\}\}\s*")
OF_SOURCE = re.compile(r"""item(?:\[|\.get\()\s*["']([^"']{1,200})["']""")  # item["x"], item.get("x")
DEFAULT_ENDPOINT = "default"
OF_MODELS = ("judge", "embedding")  # types of rewards
EMBEDDINGS, COSINE = "embeddings", "cosine"  # endpoint and measure


def reward_of(grader: Grader, services: Services) -> dict[str, Any]:
    """Return a grader as the settings of a reward.

    Raises:
        RewardServiceError: it names a model that no endpoint has.
    """
    if not isinstance(grader, MultiGrader):
        return _single(grader, services)
    parts = {name: _single(part, services) for name, part in grader.graders.items()}
    return {"type": "multi", "name": _slug(grader.name), "formula": grader.calculate_output, "rewards": parts}


def _single(grader: SingleGrader, services: Services) -> dict[str, Any]:
    if isinstance(grader, TextSimilarityGrader) and grader.evaluation_metric == COSINE:
        if EMBEDDINGS not in services.endpoints:
            raise RewardServiceError(
                f"cosine needs embeddings: let an administrator add the endpoint {EMBEDDINGS!r} to reward_endpoints; "
                "or use fuzzy_match or rouge_l"
            )
        texts = grader.model_dump(mode="json", include={"input", "reference"})
        return {"type": "embedding", "name": _slug(grader.name), "endpoint": EMBEDDINGS, **texts}
    if isinstance(grader, StringCheckGrader | TextSimilarityGrader):
        return grader.model_dump(mode="json", exclude={"pass_threshold"}) | {"name": _slug(grader.name)}
    if isinstance(grader, PythonGrader):
        return {"type": "python", "name": _slug(grader.name), "source": grader.source}
    messages = [_message(message) for message in grader.input]
    endpoint, model = _place(grader.model, services)
    settings = {
        "type": "judge",
        "name": _slug(grader.name),
        "endpoint": endpoint,
        "model": model,
        "messages": messages,
        "images": any(_means_images(part) for message in grader.input for part in _parts(message)),
        **_sampling(grader),
    }
    if isinstance(grader, LabelModelGrader):
        return settings | {"labels": grader.labels, "passing_labels": grader.passing_labels}
    return settings | ({} if grader.range is None else {"range": list(grader.range)})


def is_exact(grader: Grader) -> bool:
    """Return if a grader compares the answer with a column: the verifier `exact` on the answer of the row."""
    if not isinstance(grader, StringCheckGrader) or grader.operation != "eq":
        return False
    column = COLUMN.fullmatch(grader.reference)
    return bool(ANSWER.fullmatch(grader.input) and column and len(parts_of(column[1])) == 1)


def item_paths(grader: Grader) -> list[str]:
    """Return the columns that a grader reads, references first, parts of them behind dots."""
    found = [path for path in placeholders(grader) if path.startswith("item.")]
    sources = [part.source for part in _singles(grader) if isinstance(part, PythonGrader)]
    names = [name for source in sources for name in OF_SOURCE.findall(source)]
    return list(dict.fromkeys([*(".".join(parts_of(path)[1:]) for path in found), *names]))


def image_columns(grader: Grader) -> list[str]:
    """Return the columns whose images a grader shows to its model."""
    parts = (part for text in _messages(grader) for part in _parts(text))
    found = (COLUMN.fullmatch(part.image_url or "") for part in parts if _means_images(part))
    return list(dict.fromkeys(parts_of(match[1])[0] for match in found if match))


def placeholders(grader: Grader) -> list[str]:
    """Return the paths of all placeholders of a grader, references first."""
    return [path for text in _texts(grader) for path in PLACEHOLDER.findall(text)]


def grader_of(reward: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of a reward as a grader, or None if OpenAI has none like it."""
    name = reward.get("name")
    match reward["type"]:
        case "string_check" | "text_similarity" as kind:
            fields = ("input", "reference", "operation" if kind == "string_check" else "evaluation_metric")
            return {"type": kind, "name": name, **{field: reward[field] for field in fields}}
        case "embedding":
            texts = {field: reward[field] for field in ("input", "reference")}
            return {"type": "text_similarity", "name": name, **texts, "evaluation_metric": COSINE}
        case "python":
            return {"type": "python", "name": name, "source": reward["source"]}
        case "judge":
            return _model_grader(reward)
        case "multi":
            parts = {part: grader_of(inner) for part, inner in reward["rewards"].items()}
            if None in parts.values():
                return None
            return {"type": "multi", "name": name, "graders": parts, "calculate_output": reward["formula"]}
    return None


def _model_grader(reward: Mapping[str, Any]) -> dict[str, Any]:
    messages = [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [
                {"type": "input_text", "text": part["content"]}
                if part["type"] == "text"
                else {"type": "input_image", "image_url": part["content"]}
                for part in message["content"]
            ],
        }
        for message in reward["messages"]
    ]
    shared = {"name": reward["name"], "model": f"{reward['endpoint']}/{reward['model']}", "input": messages}
    if reward.get("labels"):
        labels = {name: list(reward[name]) for name in ("labels", "passing_labels")}
        return {"type": "label_model", **shared, **labels}
    return {"type": "score_model", **shared, "range": list(reward["range"])}


def _message(message: GraderMessage) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    parts = [
        {"type": "image", "content": part.image_url}
        if part.type == "input_image"
        else {"type": "text", "content": part.text or ""}
        for part in _parts(message)
        if not _means_images(part)
    ]
    return {"role": message.role, "content": parts}


def _parts(message: GraderMessage) -> list[GraderPart]:
    if isinstance(message.content, str):
        return []
    listed = [message.content] if isinstance(message.content, GraderPart) else message.content
    return [GraderPart(type="input_text", text=part) if isinstance(part, str) else part for part in listed]


def _messages(grader: Grader) -> list[GraderMessage]:
    of_models = (part for part in _singles(grader) if isinstance(part, ScoreModelGrader | LabelModelGrader))
    return [message for part in of_models for message in part.input]


def _means_images(part: GraderPart) -> bool:
    """Return if a part is a column of images: these are no text columns, but go with the prompt."""
    return part.type == "input_image" and COLUMN.fullmatch(part.image_url or "") is not None


def _sampling(grader: ScoreModelGrader | LabelModelGrader) -> dict[str, Any]:
    given = grader.sampling_params
    if given is None:
        return {}
    values = {
        "temperature": given.temperature,
        "top_p": given.top_p,
        "seed": given.seed,
        "max_completion_tokens": given.max_completions_tokens or given.max_tokens,
        "reasoning_effort": given.reasoning_effort,
    }
    return {name: value for name, value in values.items() if value is not None}


def _place(model: str, services: Services) -> tuple[str, str]:
    """Return the endpoint of a model and its name there."""
    endpoint, slash, name = model.partition("/")
    if slash and endpoint in services.endpoints:
        return endpoint, name
    if len(services.endpoints) == 1:
        return next(iter(services.endpoints)), model
    if DEFAULT_ENDPOINT in services.endpoints:
        return DEFAULT_ENDPOINT, model
    known = ", ".join(sorted(services.endpoints)) or "none"
    raise RewardServiceError(
        f"no endpoint for the model {model!r}: write ENDPOINT/MODEL (there is: {known}), or let an administrator add "
        "one to reward_endpoints"
    )


def _singles(grader: Grader) -> list[SingleGrader]:
    return list(grader.graders.values()) if isinstance(grader, MultiGrader) else [grader]


def _texts(grader: Grader) -> Iterator[str]:
    """Yield all templates of a grader."""
    for part in _singles(grader):
        if isinstance(part, StringCheckGrader | TextSimilarityGrader):
            yield part.reference
            yield part.input
    for message in _messages(grader):
        yield from [message.content] if isinstance(message.content, str) else ()
        yield from (each.text for each in _parts(message) if each.text)


def _slug(name: str) -> str:
    """Return a name as metrics can have it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:100] or "grader"
