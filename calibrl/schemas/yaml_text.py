"""YAML as specs are written in: numbers and booleans as in JSON, no repeated keys."""

import re
from typing import Any

import yaml


class YamlError(ValueError):
    """A text is not valid YAML. `place`: line and column in words, empty if they are not known. `what`: the fault."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}" if place else what)
        self.place, self.what = place, what


class _Loader(yaml.SafeLoader):
    """Safe YAML with the numbers and booleans of YAML 1.2, as in JSON: `yes` and `1:30` are text, 1e-4 is a number.
    Repeated keys are errors, and so are numbers with a leading zero, which YAML 1.1 reads as octal."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    digits = text.lstrip("-+")
    if digits.startswith("0") and digits.isdigit() and digits != "0":
        remedy = f"write {digits.lstrip('0') or '0'}, or 0o{digits.lstrip('0') or '0'} for an octal number"
        raise yaml.constructor.ConstructorError(None, None, f"{text} has a leading zero: {remedy}", node.start_mark)
    return int(text, 0)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


# By first character; without those of YAML 1.1 for bool, int, float and timestamp.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] in ("null", "merge")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?\d+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), list(_first))


class _WithoutAliases(_Loader):
    """Also refuses aliases: a short text of them can stand for a value without end."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not accepted here", mark)
        return super().compose_node(parent, index)


def parsed_yaml(text: str, *, aliases: bool = True) -> Any:
    """Return the value of a YAML text. `aliases`: accept references such as `*name`, which text of strangers abuses.

    Raises:
        YamlError: the text is invalid.
    """
    try:
        return yaml.load(text, Loader=_Loader if aliases else _WithoutAliases)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(place, what) from error
    except yaml.YAMLError as error:
        raise YamlError("", " ".join(str(error).split())) from error
    except (ValueError, KeyError, OverflowError, TypeError, AttributeError) as error:  # PyYAML lets these through
        raise YamlError("", "a value does not fit its tag, or a number or character is too large") from error
