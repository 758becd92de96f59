"""A pydantic JSON schema as forms need it: references followed, variants told apart, defaults left out."""

from collections.abc import Mapping
from typing import Any

Node = Mapping[str, Any]
WORDS = {
    "builtin": "built-in",
    "coef": "coefficient",
    "gpu": "GPU",
    "gpus": "GPUs",
    "kl": "KL",
    "lora": "LoRA",
    "lr": "learning rate",
    "min": "least",
    "max": "most",
    "std": "standard deviation",
}


def words(name: str) -> str:
    """What people call a field: `max_completion_tokens` is "most completion tokens"."""
    return " ".join(WORDS.get(word, word) for word in name.split("_"))


def label(name: str) -> str:
    """The same as the title of a widget."""
    text = words(name)
    return text[:1].upper() + text[1:]


class Schema:
    """The schema of one model, and of all that it is made of."""

    def __init__(self, root: Node) -> None:
        self.root = root

    def optional(self, node: Node) -> tuple[Node, bool]:
        """What a field holds where it holds something, and whether it may hold nothing."""
        node = self._resolved(node)
        kinds = node.get("anyOf", ())
        others = [kind for kind in kinds if kind.get("type") != "null"]
        if len(others) == len(kinds):
            return node, False
        beside = {name: value for name, value in node.items() if name != "anyOf"}
        return ({**self._resolved(others[0]), **beside} if len(others) == 1 else {**beside, "anyOf": others}), True

    def _resolved(self, node: Node) -> Node:
        while "$ref" in node:
            target = self.root["$defs"][node["$ref"].rpartition("/")[2]]
            node = {**target, **{name: value for name, value in node.items() if name != "$ref"}}
        return node

    def variants(self, node: Node) -> dict[str, Node]:
        """The members of a union by name: the value of what tells them apart, or else the field that only one has."""
        members = [self._resolved(member) for member in node["oneOf"]]
        marker = node.get("discriminator", {}).get("propertyName")
        return {
            member["properties"][marker]["const"] if marker else member["required"][0]: member for member in members
        }

    def titles(self, field: str) -> dict[str, str]:
        """Return what people call the variants of a field, by their names: the titles of their schemas."""
        return {name: str(member["title"]) for name, member in self.variants(self.root["properties"][field]).items()}

    def variant(self, node: Node, value: Mapping[str, Any]) -> str:
        """Which member of a union a value is; the first one for a value that says nothing."""
        names = list(self.variants(node))
        marker = node.get("discriminator", {}).get("propertyName")
        if marker:
            return str(value.get(marker, names[0]))
        return next((name for name in names if name in value), names[0])

    def trimmed(self, node: Node, value: Any) -> Any:
        """A value without what stands there anyway. What has to be said, and what tells variants apart, stays."""
        node, _ = self.optional(node)
        if "oneOf" in node and isinstance(value, dict):
            node = self.variants(node)[self.variant(node, value)]
        if isinstance(value, list):
            return [self.trimmed(node["items"], item) for item in value]
        if not isinstance(value, dict) or "properties" not in node:
            return value
        kept = {}
        for name, item in value.items():
            part, less = node["properties"][name], self.trimmed(node["properties"][name], item)
            # What a factory makes has no default in the schema: it is said anyway where nothing is left of it.
            said_anyway = item == part["default"] if "default" in part else less in ({}, [], None)
            if name in node.get("required", ()) or isinstance(part.get("const"), str) or not said_anyway:
                kept[name] = less
        return kept
