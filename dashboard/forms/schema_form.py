"""A form made of a schema: a field's type, bounds, default and description say which widget it gets.

Widgets in the order in which a page asks for them (`fields`), then whatever is left of a section (`rest`). `value` is
what they say; `blame` puts a service's objections beside the widgets that they are about.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.forms.schema import Node, Schema, label, words
from dashboard.markup import escape
from dashboard.palette import WRONG

CELL = 150  # pixels that a widget needs
FORM = "new-"  # begins the key of every form
EMPTY = re.compile(r"None: ([^.;]+)")  # what a description says of no value
MARKDOWN = str.maketrans({character: f"\\{character}" for character in r"\`*_{}[]()<>#+-.!|~$:"})


def keep_filled_in() -> None:
    """Have what was filled in be there again: Streamlit forgets a widget that is not drawn, such as those of another
    variant, or of another page. To be called on every page."""
    for key, value in st.session_state.items():
        if str(key).startswith(FORM) and "#" not in str(key):  # that is in the names of buttons, which have no state
            st.session_state[key] = value


def _help(node: Node, path: str) -> str | None:
    """A field's description for a tooltip, which takes Markdown."""
    text = str(node.get("description", "")).split("\n\n")[0].replace("\n", " ")
    return f"{text.translate(MARKDOWN)} (`{path}`)" if text else None


def _empty(node: Node) -> str:
    """What to show where there is no value."""
    found = EMPTY.search(node.get("description", ""))
    return found[1] if found else "none"


def _step(value: float) -> float:
    """What one press of a number's plus adds: about a tenth of it."""
    return 10.0 ** (math.floor(math.log10(abs(value))) - 1) if value else 0.01


class Form:
    """The widgets of one schema. Another `key` is another form, which begins anew with its `start`.

    `offered`: by a field's name, the values that it may have and what to call each. `named`: what to call variants.
    `common`: fields of variants that are open at first; those that must be said always are.
    """

    def __init__(
        self,
        schema: Schema,
        start: Mapping[str, Any],
        *,
        key: str,
        offered: Mapping[str, Mapping[str, str]],
        named: Mapping[str, str],
        common: Iterable[str] = (),
    ) -> None:
        self.offered = dict(offered)
        self.value: dict[str, Any] = {}
        self.missing: list[str] = []  # fields that must be said and are not
        self._schema, self._start, self._key, self._named = schema, start, key, named
        self._common = frozenset(common)
        self._slots: dict[str, DeltaGenerator] = {}
        self._seen: set[str] = set()

    def fields(self, *paths: str) -> None:
        """Widgets for these fields, such as `optimizer.lr`; those of sections side by side."""
        found = [(path, *self._find(path)) for path in paths if path not in self._seen]
        self._seen.update(paths)
        for path, value in self._grid([(path, path, node, start) for path, node, start in found], frozenset()).items():
            *above, name = path.split(".")
            place = self.value
            for part in above:
                place = place.setdefault(part, {})
            place[name] = value

    def rest(self, *sections: str) -> None:
        """Widgets for what `fields` has not shown of these sections; one of them may be a single field."""
        paths = []
        for section in sections:
            node, optional = self._schema.optional(self._find(section)[0])
            whole = optional or "properties" not in node
            paths += [section] if whole else [f"{section}.{name}" for name in node["properties"]]
        self.fields(*paths)

    def blame(self, errors: Iterable[Mapping[str, str]]) -> None:
        """Put each error ({field, message}) beside the widget of its field, or of what the field is a part of."""
        at: dict[str, list[str]] = {}
        for error in errors:
            field = error.get("field", "")
            while field and field not in self._slots:
                field = field.rpartition(".")[0]
            at.setdefault(field, []).append(error.get("message", ""))
        for field, messages in at.items():
            if field:
                text = "; ".join(messages)
                self._slots[field].html(
                    f'<div role="alert" style="border-left:3px solid {WRONG};padding-left:.5rem;font-size:.85rem;'
                    f'overflow-wrap:anywhere">{escape(text)}</div>'
                )

    def _find(self, path: str) -> tuple[Node, Any]:
        """A field's schema, and what it begins with (None: its default)."""
        node: Node = self._schema.root
        start: Any = self._start
        for name in path.split("."):
            node = self._schema.optional(node)[0]["properties"][name]
            start = start.get(name) if isinstance(start, Mapping) else None
        return node, start

    def _grid(self, cells: list[tuple[str, str, Node, Any]], folded: frozenset[str]) -> dict[str, Any]:
        """Widgets for (path, key, schema, start): small ones side by side, large ones below, `folded` ones last."""
        values: dict[str, Any] = {}
        shown = [cell for cell in cells if cell[0] not in folded]
        small = [cell for cell in shown if not self._is_large(cell[2])]
        if small:
            with st.grid(min(3, len(small)), min_column_width=CELL):
                for path, key, node, start in small:
                    with st.container():
                        values[path] = self._draw(path, key, node, start)
        for path, key, node, start in shown:
            if path not in values:
                values[path] = self._draw(path, key, node, start)
        hidden = [cell for cell in cells if cell[0] in folded]
        if hidden:
            titles = ", ".join(words(cell[0].rpartition(".")[2]) for cell in hidden[:4])
            with st.expander(f"{len(hidden)} more: {titles}{', …' if len(hidden) > 4 else ''}"):
                values |= self._grid(hidden, frozenset())
        return {cell[0]: values[cell[0]] for cell in cells}

    def _is_large(self, node: Node) -> bool:
        node, _ = self._schema.optional(node)
        of_parts = "oneOf" in node.get("items", {})
        return "oneOf" in node or "properties" in node or of_parts

    def _draw(self, path: str, key: str, node: Node, start: Any) -> Any:
        node, optional = self._schema.optional(node)
        if "const" in node and not optional:
            return node["const"]
        start = node.get("default") if start is None else start
        if "properties" in node:
            value = self._section(path, key, node, start, optional=optional)
        elif "oneOf" in node:
            value = self._variant(path, key, node, start or {})
        elif "oneOf" in node.get("items", {}):
            value = self._list(path, key, node, start or [])
        else:
            value = self._widget(path, f"{self._key}:{key}", node, start, optional=optional)
            if value is None and not optional:
                self.missing.append(path)
        self._slots[path] = st.empty()
        return value

    def _section(self, path: str, key: str, node: Node, start: Any, *, optional: bool) -> Any:
        name = label(path.rpartition(".")[2])
        if optional and not st.toggle(name, start is not None, key=f"{self._key}:{key}", help=_help(node, path)):
            return None
        if not optional:
            st.caption(name)
        return self._members(path, key, node, start or {})

    def _members(self, path: str, key: str, node: Node, start: Mapping[str, Any], *, folds: bool = False) -> Any:
        cells = [
            (f"{path}.{name}", f"{key}.{name}", part, start.get(name))
            for name, part in node["properties"].items()
            if "const" not in part
        ]
        opened = {*node.get("required", ()), *self._common}
        folded = frozenset(cell[0] for cell in cells if folds and cell[0].rpartition(".")[2] not in opened)
        drawn = self._grid(cells, folded)
        consts = {name: part["const"] for name, part in node["properties"].items() if "const" in part}
        return consts | {path.rpartition(".")[2]: value for path, value in drawn.items()}

    def _variant(self, path: str, key: str, node: Node, start: Mapping[str, Any]) -> Any:
        variants = self._schema.variants(node)
        names, before = list(variants), self._schema.variant(node, start)
        chosen = st.selectbox(
            self._title(path, node),
            names,
            names.index(before),
            format_func=lambda name: self._named.get(name, label(name)),
            key=f"{self._key}:{key}",
            help=_help(variants[before], path),
        )
        kept = start if chosen == before else {}
        return self._members(path, f"{key}:{chosen}", variants[chosen], kept, folds=True)

    def _title(self, path: str, node: Node) -> str:
        """What the choice of a variant is called: with a kind to name it is that, else where something comes from."""
        *_, last = path.rpartition(".")
        if "discriminator" not in node:
            return "Where it comes from"
        return f"{label(path.split('.')[-2]).rstrip('s')} {int(last) + 1}" if last.isdigit() else label(last)

    def _list(self, path: str, key: str, node: Node, start: list[Any]) -> list[Any]:
        """Entries to add to and take from; the state holds a number for each, by which its widgets are kept."""
        state = f"{self._key}:{key}#"
        numbers: list[int] = st.session_state.setdefault(state, list(range(len(start) or 1)))
        name = label(path).rstrip("s")

        def add() -> None:
            st.session_state[state] = [*numbers, max(numbers, default=-1) + 1]

        def take_away(number: int) -> None:
            st.session_state[state] = [each for each in numbers if each != number]

        # Another model most often comes from where the last one does; two rewards of one kind are refused.
        fresh = start[-1] if start and "discriminator" not in node["items"] else {}
        values = []
        for place, number in enumerate(numbers):
            with st.container(border=True):
                given = start[number] if number < len(start) else fresh
                values.append(self._draw(f"{path}.{place}", f"{key}.{number}", node["items"], given))
                if len(numbers) > node.get("minItems", 0):
                    said = f"Take {name.lower()} {place + 1} away"
                    st.button(said, key=f"{state}{number}", on_click=take_away, args=(number,), type="tertiary")
        if len(numbers) < node.get("maxItems", 100):
            st.button(f"Add another: {name.lower()}", key=f"{state}add", on_click=add, icon=":material/add:")
        return values

    def _widget(self, path: str, key: str, node: Node, start: Any, *, optional: bool) -> Any:
        """The widget of a field that holds one thing, or several of one kind; what it says."""
        name = path.rpartition(".")[2]
        said: dict[str, Any] = {"label": label(name), "key": key, "help": _help(node, path)}
        if name in self.offered:
            return self._choice(node, start, self.offered[name], said)
        if "anyOf" in node:  # words or a number: best, last or a step
            given = [str(word) for kind in node["anyOf"] for word in kind.get("enum", ())]
            options = list(dict.fromkeys([*given, str(start)]))
            picked = st.selectbox(**said, options=options, index=options.index(str(start)), accept_new_options=True)
            return int(picked) if picked and picked.isdecimal() else picked
        if "enum" in node or "const" in node:
            values: list[Any] = [*node.get("enum", [node.get("const")]), *([None] if optional else [])]
            place = values.index(start) if start in values else 0
            return st.selectbox(**said, options=values, index=place, format_func=_said)
        if node["type"] == "boolean":
            return st.checkbox(**said, value=bool(start))
        if node["type"] == "integer":
            return _whole(node, start, said)
        if node["type"] == "number":
            return _decimal(node, start, said)
        if node["type"] in ("array", "object"):
            return _several(node, start or [], said)
        text = st.text_input(
            **said,
            value=start or "",
            max_chars=node.get("maxLength"),
            placeholder=_empty(node) if optional else None,
        )
        return text.strip() or None

    def _choice(self, node: Node, start: Any, offered: Mapping[str, str], said: dict[str, Any]) -> Any:
        options = list(offered)
        if node.get("type") == "array":
            return st.multiselect(**said, options=options, default=start or [], format_func=offered.__getitem__)
        return st.selectbox(
            **said,
            options=options,
            index=options.index(start) if start in offered else 0 if options else None,
            format_func=offered.__getitem__,
            placeholder="There is none yet" if not options else "Choose one",
            disabled=not options,
        )


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def _whole(node: Node, start: int | None, said: dict[str, Any]) -> int | None:
    above = node.get("exclusiveMaximum")
    given: int | None = st.number_input(
        **said,
        value=start,
        min_value=node.get("minimum"),
        max_value=node.get("maximum") if above is None else above - 1,
        step=1,
        placeholder=_empty(node),
    )
    return given


def _decimal(node: Node, start: float | None, said: dict[str, Any]) -> float | None:
    """PathBounds that are not in the range themselves are left to the service."""
    low, high = (node.get(name, node.get(f"exclusive{name.capitalize()}")) for name in ("minimum", "maximum"))
    given: float | None = st.number_input(
        **said,
        value=None if start is None else float(start),
        min_value=None if low is None else float(low),
        max_value=None if high is None else float(high),
        step=_step(start or 0),
        format="%g",
        placeholder=_empty(node),
    )
    return given


def _several(node: Node, start: Any, said: dict[str, Any]) -> Any:
    """Words out of a list, words of one's own, or pairs written as key:value."""
    if node["type"] == "object":
        pairs = [f"{name}:{value}" for name, value in dict(start).items()]
        given = st.multiselect(
            **said, options=pairs, default=pairs, accept_new_options=True, placeholder="key:value, then Enter"
        )
        return {name.strip(): value.strip() for name, _, value in (pair.partition(":") for pair in given)}
    words = node["items"].get("enum")
    return st.multiselect(
        **said,
        options=words or list(start),
        default=list(start),
        accept_new_options=words is None,
        placeholder="Choose any" if words else "Type one, then Enter",
    )
