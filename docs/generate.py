"""Write the generated pages of the reference: spec, settings, command line, REST routes, metrics,
presets.

mkdocs runs this file as a hook. `pages()` returns the same pages without mkdocs, for tests.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))  # mkdocs loads this file alone

from api.main import app as api_app
from calibrl import presets
from calibrl.cli import app as cli_app
from calibrl.schemas import StudySpec, job_spec_adapter
from calibrl_core.metrics import FAMILIES, HISTOGRAMS, Metric
from jobs.settings import Settings

Schema = dict[str, Any]
BOUNDS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
    "pattern": "matches `{}`",
}
KINDS = ("TrainSpec", "EvaluateSpec", "AuditSpec", "WhatIfSpec", "BisectSpec")  # first on the page of the spec
METHODS = ("get", "post", "put", "patch", "delete")


def _prose(text: str) -> str:
    """Keep `<name>` outside code spans from being read as HTML."""
    parts = text.split("`")
    return "`".join(part.replace("<", "&lt;") if index % 2 == 0 else part for index, part in enumerate(parts))


def _cell(text: object) -> str:
    return " ".join(_prose(str(text)).replace("|", "\\|").split())


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part.strip() for part in parts if part.strip())]) + "\n"


# ---- JSON schemas


def _type(schema: Schema) -> str:
    """Return the type of a field in words, with links to the tables of its own fields."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(option) for option in schema[key]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return "mapping"
    return str(schema.get("format", schema.get("type", "any")))


def _bounds(schema: Schema) -> str:
    options = [schema, *schema.get("anyOf", ())]
    found = [text.format(option[key]) for option in options for key, text in BOUNDS.items() if key in option]
    return ", ".join(dict.fromkeys(found))


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    if "default" in schema:
        return f"`{json.dumps(schema['default'])}`"
    return "see its fields" if "$ref" in str(schema) else "empty"


def _fields(schema: Schema) -> str:
    required = schema.get("required", ())
    rows = [
        [
            f"`{name}`",
            _type(field),
            _default(field, name in required),
            "; ".join(part for part in (field.get("description", ""), _bounds(field)) if part),
        ]
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(("Field", "Type", "Default", "Meaning and limits"), rows)


def _definition(name: str, schema: Schema) -> str:
    parts = [f"## {name}", _prose(schema.get("description", ""))]
    parts.append(" or ".join(f"`{value}`" for value in schema["enum"]) if "enum" in schema else _fields(schema))
    return "\n\n".join(part for part in parts if part)


def spec() -> str:
    """Return the page of every field of a job's spec."""
    definitions: dict[str, Schema] = job_spec_adapter.json_schema()["$defs"]
    order = sorted(definitions, key=lambda name: (KINDS.index(name) if name in KINDS else len(KINDS), name))
    intro = (
        "A spec is a mapping in YAML or JSON. `kind: train` selects [TrainSpec](#trainspec), `kind: evaluate`\n"
        "[EvaluateSpec](#evaluatespec), `kind: audit` [AuditSpec](#auditspec), `kind: what_if`\n"
        "[WhatIfSpec](#whatifspec), `kind: bisect` [BisectSpec](#bisectspec). An unknown field is an\n"
        "error. A field without a default is required.\n"
        "[Presets](presets.md) are complete specs."
    )
    return _page("Spec", intro, *(_definition(name, definitions[name]) for name in order))


def study() -> str:
    """Return the page of every field of a study."""
    schema = StudySpec.model_json_schema()
    elsewhere = {"JsonValue", *job_spec_adapter.json_schema()["$defs"]}
    own = {"StudySpec": schema} | {name: found for name, found in schema["$defs"].items() if name not in elsewhere}
    intro = (
        "A study is a mapping in YAML or JSON, a [StudySpec](#studyspec). [Run a study](../how-to/run-a-study.md)\n"
        "explains it. An unknown field is an error. A field without a default is required."
    )
    text = _page("Study", intro, *(_definition(name, found) for name, found in own.items()))
    here = {name.lower() for name in own}
    return re.sub(r"\]\(#(\w+)\)", lambda found: found[0] if found[1] in here else f"](spec.md#{found[1]})", text)


# ---- Settings


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else f"CALIBRL_{name.upper()}"


def _setting(name: str, schema: Schema) -> list[str]:
    field = Settings.model_fields[name]
    default = "the host name" if field.default_factory and name == "worker_name" else schema.get("default")
    shown = "not set" if default is None else f"`{default}`" if default != "" else "empty"
    meaning = "; ".join(part for part in (field.description or "", _bounds(schema)) if part)
    return [f"`{variable(name)}`", shown, meaning]


def settings() -> str:
    """Return the page of every environment variable that the service reads."""
    properties = Settings.model_json_schema(by_alias=False)["properties"]
    intro = (
        "Each process reads its settings from environment variables, once, when it starts. Durations are in\n"
        "seconds. An empty variable counts as not set. `jobs/settings.py` reads those of the service,\n"
        "`calibrl/settings.py` those of the command line and the client."
    )
    rows = [_setting(name, schema) for name, schema in properties.items()]
    return _page("Settings", intro, _table(("Variable", "Default", "Meaning and limits"), rows))


# ---- Command line


def commands(group: Any = None, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return every command by its full name: `calibrl keys create`. Groups that do something alone count too."""
    command = typer.main.get_command(cli_app) if group is None else group
    inner = getattr(command, "commands", {})
    alone = not inner or (path and command.invoke_without_command)
    found = {" ".join(("calibrl", *path)): command} if alone else {}
    for name, child in inner.items():
        found |= commands(child, (*path, name))
    return found


def _parameters(command: Any) -> list[list[object]]:
    rows: list[list[object]] = []
    for parameter in command.params:
        metavar = parameter.metavar or ""
        if parameter.param_type_name == "option":
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            shown = f"{names} {metavar}".strip()
        else:
            shown = metavar or parameter.name.upper()
        rows.append([f"`{shown}`", "yes" if parameter.required else "", parameter.help or ""])
    return rows


def _command(name: str, command: Any) -> str:
    parts = [f"## {name}", _prose(" ".join((command.help or "").split()))]
    if rows := _parameters(command):
        parts.append(_table(("Argument or option", "Required", "Meaning"), rows))
    return "\n\n".join(part for part in parts if part)


def cli() -> str:
    """Return the page of every command."""
    intro = (
        "`JOB` is an ID, the beginning of one, or `latest`. Exit status: 0 for success, 1 for a failure, 2 for\n"
        "invalid input. `calibrl COMMAND --help` shows the same text."
    )
    return _page("Command line", intro, *(_command(name, command) for name, command in commands().items()))


# ---- REST


def _body(operation: Schema) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    names = [_name(media.get("schema", {})) or kind for kind, media in content.items()]
    return f"Body: {', '.join(dict.fromkeys(names))}." if names else ""


def _name(schema: Schema) -> str:
    options = [schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())]
    return " or ".join(f"`{option['$ref'].rpartition('/')[2]}`" for option in options if "$ref" in option)


def _answers(operation: Schema) -> str:
    found = []
    for status, response in operation["responses"].items():
        if status == "default":
            continue
        names = [_name(media.get("schema", {})) for media in response.get("content", {}).values()]
        shown = " or ".join(dict.fromkeys(name for name in names if name))
        found.append(f"{status} {shown}".strip())
    return f"Success: {'; '.join(found)}." if found else ""


def _route(method: str, path: str, operation: Schema) -> str:
    text = _prose(operation.get("description", ""))
    parts = [f"### {method.upper()} {path}", text, _body(operation), _answers(operation)]
    if parameters := operation.get("parameters"):
        rows = [
            [
                f"`{each['name']}`",
                each["in"],
                "text" if "$ref" in str(each["schema"]) else _type(each["schema"]),
                "; ".join(part for part in (each.get("description", ""), _bounds(each["schema"])) if part),
            ]
            for each in parameters
        ]
        parts.append(_table(("Parameter", "In", "Type", "Meaning and limits"), rows))
    return "\n\n".join(part for part in parts if part)


def routes() -> list[tuple[str, str, Schema]]:
    """Return (method, path, operation) of every route, in the order of the OpenAPI document."""
    paths = api_app.openapi()["paths"]
    return [(method, path, paths[path][method]) for path in paths for method in METHODS if method in paths[path]]


def rest() -> str:
    """Return the page of every route."""
    intro = (
        "[The API](api.md) explains keys, pages, errors and formats. A running service describes itself at\n"
        "`/openapi.json`. Errors are problem documents (RFC 9457); routes of OpenAI's API answer in OpenAI's form."
    )
    parts: list[str] = []
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in routes()):
        parts.append(f"## {tag}")
        parts += [_route(*route) for route in routes() if route[2]["tags"][0] == tag]
    return _page("REST", intro, *parts)


# ---- Metrics


def _metric(metric: Metric) -> list[str]:
    interval = " Also `_low` and `_high`: its 95 % interval over prompts." if metric.interval else ""
    return [
        f"`{metric.name}`",
        metric.unit,
        metric.meaning + interval,
        metric.how_to_read,
        "" if metric.direction == "none" else metric.direction,
    ]


def metric_page() -> str:
    """Return the page of every metric and histogram in the registry."""
    intro = (
        "Each step of a training job reports metrics by name, `family/name`. A metric without a value at a step is\n"
        "absent, for example the gap if no prompt has an expert. Shares are from 0 to 1. Entropies, gaps and\n"
        "log-probabilities are in nats and belong to the distribution that was sampled from (logits / temperature,\n"
        "without banned tokens). Unless noted otherwise, a metric describes the rollouts of the step as sampled,\n"
        "before the first update of the step. With dynamic sampling (`dapo`) these are the groups that were kept:\n"
        "their accuracy stays near the middle whatever the policy learns. Then use `sampled/` and `validation/`.\n\n"
        "*Good* is the direction of a good run, if there is one. [Health rules](health-rules.md) watch some metrics."
    )
    head = ("Name", "Unit", "Meaning", "How to read it", "Good")
    parts = [
        f"## {_prose(family.title)}\n\n{_prose(family.about)}\n\n{_table(head, map(_metric, family.metrics))}"
        for family in FAMILIES
    ]
    about = (
        "Distributions over the values of a step. The bins stay the same during a run; outliers count in the end bins."
    )
    rows = [[f"`{metric.name}`", metric.unit, metric.meaning] for metric in HISTOGRAMS]
    return _page("Metrics", intro, *parts, "## Histograms", about, _table(head[:3], rows))


# ---- Presets


def preset_page() -> str:
    """Return the page of the presets, whole."""
    intro = (
        "A preset is a complete spec. `calibrl presets` lists them, `calibrl presets NAME` prints one as YAML.\n"
        "There is one preset per algorithm, the run of the paper, and the defaults of other projects."
    )
    parts = [f"## {name}\n\n{presets.summary(name)}\n\n```yaml\n{presets.text(name)}```" for name in presets.names()]
    return _page("Presets", intro, *parts)


PAGES: dict[str, Callable[[], str]] = {
    "reference/spec.md": spec,
    "reference/study.md": study,
    "reference/settings.md": settings,
    "reference/cli.md": cli,
    "reference/rest.md": rest,
    "reference/metrics.md": metric_page,
    "reference/presets.md": preset_page,
}


def pages() -> dict[str, str]:
    """Return the text of each generated page by its path below `docs/`."""
    return {path: make() for path, make in PAGES.items()}


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site (a hook of mkdocs)."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
