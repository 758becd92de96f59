"""A form made of a schema: a field's type, bounds, default and description say which widget it gets.

Widgets in the order in which a page asks for them (`fields`), then whatever is left of a section (`rest`). `value` is
what they say; `blame` puts a service's objections beside the widgets that they are about.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.forms import numbers
from dashboard.forms.job_picker import BY_TEXT
from dashboard.forms.schema import Node, Schema, label
from dashboard.markup import as_markdown, escape
from dashboard.palette import WRONG

CELL = 150  # minimum width of a widget, pixels
LINE = 4096  # characters; a field that can hold more gets several lines
REQUIRED = "Required"
Search = Callable[[str], Mapping[str, str]]
DEFAULT = object()  # the initial value of a field that the form's start does not name; None is a value
FORM = "new-"  # prefix of the key of every form
KEPT: dict[str, Any] = {"persist_state": "session"}  # a value stays while its widget is not drawn
EMPTY = re.compile(r"(?:None|[Ee]mpty|[Nn]ull): ([^.;)]+)")  # the meaning of no value, in a description


def _help(node: Node, path: str) -> str | None:
    """A field's description as a tooltip (Markdown), with its path."""
    text = str(node.get("description", "")).split("\n\n")[0].replace("\n", " ").replace("None:", "Empty:")
    return f"{as_markdown(text)} (`{path}`)" if text else None


def _empty(node: Node) -> str:
    """The placeholder of an empty field."""
    meaning = EMPTY.search(node.get("description", ""))
    return meaning[1] if meaning else "none"


class SpecForm:
    """The widgets of one schema. A new `key` is a new form, which starts with the values of `start`.

    Args:
        offered: the options of a field by its name, each with its label.
        named: labels of variants.
        common: fields of variants that are unfolded at first; required fields always are.
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
        self.search: dict[str, Search] = {}  # by field with options: finds further ones by a text
        self.value: dict[str, Any] = {}
        self.errors: list[dict[str, str]] = []  # {field, message} of fields that are empty or out of range
        self._schema, self._start, self._key, self._named = schema, start, key, named
        self._common = frozenset(common)
        self._slots: dict[str, DeltaGenerator] = {}
        self._seen: set[str] = set()

    def fields(self, *paths: str) -> None:
        """Draw widgets for these fields, such as `optimizer.lr`."""
        nodes = [(path, *self._find(path)) for path in paths if path not in self._seen]
        self._seen.update(paths)
        for path, value in self._grid([(path, path, node, start) for path, node, start in nodes], frozenset()).items():
            *above, name = path.split(".")
            place = self.value
            for part in above:
                place = place.setdefault(part, {})
            place[name] = value

    def rest(self, *sections: str) -> None:
        """Draw the fields of these sections that `fields` has not drawn; a section can be a single field."""
        paths = []
        for section in sections:
            node, optional = self._schema.optional(self._find(section)[0])
            whole = optional or "properties" not in node
            paths += [section] if whole else [f"{section}.{name}" for name in node["properties"]]
        self.fields(*paths)

    def blame(self, errors: Iterable[Mapping[str, str]]) -> None:
        """Show each error ({field, message}) at the widget of its field, or at the nearest section around it."""
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
        """Return a field's schema and its initial value."""
        node: Node = self._schema.root
        start: Any = self._start
        for name in path.split("."):
            node = self._schema.optional(node)[0]["properties"][name]
            start = start.get(name, DEFAULT) if isinstance(start, Mapping) else DEFAULT
        return node, start

    def _grid(self, cells: list[tuple[str, str, Node, Any]], folded: frozenset[str]) -> dict[str, Any]:
        """Draw (path, key, schema, start): small widgets side by side, large ones below, `folded` ones last."""
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
            with st.expander(f"Advanced ({len(hidden)})"):
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
        start = node.get("default") if start is DEFAULT else start
        if "properties" in node:
            value = self._section(path, key, node, start, optional=optional)
        elif "oneOf" in node and isinstance(start, list) and (several := self._schema.list_variant(node)):
            value = self._list(path, key, several, start)
        elif "oneOf" in node:
            value = self._variant(path, key, node, start or {})
        elif "oneOf" in node.get("items", {}):
            value = self._list(path, key, node, start or [])
        else:
            value = self._widget(path, f"{self._key}:{key}", node, start, optional=optional)
            if value is None and not optional and not any(error["field"] == path for error in self.errors):
                self._refuse(path, REQUIRED)
        self._slots[path] = st.empty()
        return value

    def _section(self, path: str, key: str, node: Node, start: Any, *, optional: bool) -> Any:
        name = label(path)
        if optional:
            wanted = st.toggle(name, start is not None, key=f"{self._key}:{key}", help=_help(node, path), **KEPT)
            if not wanted:
                return None
        if not optional:
            st.caption(name)
        return self._members(path, key, node, start or {})

    def _members(self, path: str, key: str, node: Node, start: Mapping[str, Any], *, folds: bool = False) -> Any:
        cells = [
            (f"{path}.{name}", f"{key}.{name}", part, start.get(name, DEFAULT))
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
            **KEPT,
        )
        kept = start if chosen == before else {}
        return self._members(path, f"{key}:{chosen}", variants[chosen], kept, folds=True)

    def _title(self, path: str, node: Node) -> str:
        """The label of the choice of a variant."""
        *_, last = path.rpartition(".")
        if "discriminator" not in node:
            return "Source"
        return f"{label(path).rstrip('s')} {int(last) + 1}" if last.isdigit() else label(path)

    def _list(self, path: str, key: str, node: Node, start: list[Any]) -> list[Any]:
        """Draw a list with buttons to add and remove entries. The session keeps a number per entry for its widgets."""
        state = f"{self._key}:{key}#"
        numbers: list[int] = st.session_state.setdefault(state, list(range(len(start) or 1)))
        name = label(path).rstrip("s")

        def add() -> None:
            st.session_state[state] = [*numbers, max(numbers, default=-1) + 1]

        def remove(number: int) -> None:
            st.session_state[state] = [other for other in numbers if other != number]

        # A further model mostly has the source of the last one; two rewards of one type are refused.
        fresh = start[-1] if start and "discriminator" not in node["items"] else {}
        values = []
        for place, number in enumerate(numbers):
            with st.container(border=True):
                initial = start[number] if number < len(start) else fresh
                values.append(self._draw(f"{path}.{place}", f"{key}.{number}", node["items"], initial))
                if len(numbers) > node.get("minItems", 0):
                    st.button(
                        f"Remove {name.lower()} {place + 1}",
                        key=f"{state}{number}",
                        on_click=remove,
                        args=(number,),
                        type="tertiary",
                    )
        if len(numbers) < node.get("maxItems", 100):
            st.button(f"Add {name.lower()}", key=f"{state}add", on_click=add, icon=":material/add:")
        return values

    def _widget(self, path: str, key: str, node: Node, start: Any, *, optional: bool) -> Any:
        """Draw the widget of a field without parts. Return its value."""
        name = path.rpartition(".")[2]
        common: dict[str, Any] = {"label": label(path), "key": key, "help": _help(node, path), **KEPT}
        if name in self.offered:
            return self._choice(path, node, start, common)
        if "anyOf" in node:  # a word or a number: best, last or a step
            words = [str(word) for kind in node["anyOf"] for word in kind.get("enum", ())]
            options = list(dict.fromkeys([*words, str(start)]))
            picked = st.selectbox(**common, options=options, index=options.index(str(start)), accept_new_options=True)
            return int(picked) if picked and picked.isdecimal() else picked
        if "enum" in node or "const" in node:
            values: list[Any] = [*node.get("enum", [node.get("const")]), *([None] if optional else [])]
            place = values.index(start) if start in values else 0
            return st.selectbox(**common, options=values, index=place, format_func=_text)
        if node["type"] == "boolean":
            return st.checkbox(**common, value=bool(start))
        if node["type"] in ("integer", "number"):
            value = numbers.field(node, start, _empty(node), common)
            if value is not None and (error := numbers.out_of_range(node, value)):
                self._refuse(path, error)
            return value
        if node["type"] in ("array", "object"):
            words = _list_of_words(node, start or [], common)
            return None if optional and start is None and not words else words
        if node.get("maxLength", 0) > LINE:
            long = st.text_area(**common, value=start or "", max_chars=node["maxLength"], placeholder=_empty(node))
            return long if long and long.strip() else None  # white space at its ends can matter, as in a chat template
        text = st.text_input(
            **common,
            value=start or "",
            max_chars=node.get("maxLength"),
            placeholder=_empty(node) if optional else None,
        )
        return text.strip() or None

    def _choice(self, path: str, node: Node, start: Any, common: dict[str, Any]) -> Any:
        """Draw a choice of jobs, datasets or projects. If they can be searched, a typed text finds further ones."""
        name = path.rpartition(".")[2]
        options, search = self.offered[name], self.search.get(name)
        common |= {"format_func": lambda id: options.get(id, id), "accept_new_options": search is not None}
        if search is not None:
            common["placeholder"] = BY_TEXT
        if node.get("type") == "array":
            chosen = st.multiselect(**common, options=list(options), default=start or [])
            return [id for one in chosen if (id := one if one in options else self._found(path, one, common["key"]))]
        picked = st.selectbox(
            **{"placeholder": "Select" if options else "No options"} | common,
            options=list(options),
            index=list(options).index(start) if start in options else 0 if options else None,
            disabled=not options and search is None,
        )
        return picked if picked is None or picked in options else self._found(path, picked, common["key"])

    def _found(self, path: str, text: str, key: str) -> str | None:
        """Return the id that a typed text finds; of several, the one that the reader chooses."""
        found = self.search[path.rpartition(".")[2]](text)
        if not found:
            self._refuse(path, f"nothing matches {text!r}")
            return None
        if len(found) > 1:
            label = f"{len(found)} match {as_markdown(text)}"
            chosen: str = st.selectbox(label, list(found), format_func=found.__getitem__, key=f"{key}:{text}", **KEPT)
            return chosen
        (id,) = found
        st.caption(as_markdown(found[id]))
        return id

    def _refuse(self, path: str, message: str) -> None:
        self.errors.append({"field": path, "message": message})


def _text(value: object) -> str:
    return "none" if value is None else str(value)


def _list_of_words(node: Node, start: Any, common: dict[str, Any]) -> Any:
    """Words from a list, free words, or pairs written as key=value or key:value."""
    if node["type"] == "object":
        read, write = _pair_values(node)
        pairs = [f"{name}={write(value)}" for name, value in dict(start).items()]
        words = st.multiselect(
            **common, options=pairs, default=pairs, accept_new_options=True, placeholder="key=value, then Enter"
        )
        return {name.strip(): read(value.strip()) for name, value in map(_pair, words)}
    options = node["items"].get("enum")
    return st.multiselect(
        **common,
        options=options or list(start),
        default=list(start),
        accept_new_options=options is None,
        placeholder="Select" if options else "Type a value, then Enter",
    )


def _pair(word: str) -> tuple[str, str]:
    name, *value = re.split("[=:]", word, maxsplit=1)
    return name, "".join(value)


def _pair_values(node: Node) -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    """Return how the values of an object's fields are read and written: as text, or as JSON if they can be other
    scalars, where a text that is not JSON needs no quotes.
    """
    if all(value.get("type") == "string" for value in node.get("patternProperties", {}).values()):
        return str, str

    def read(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    def write(value: Any) -> str:
        return value if isinstance(value, str) and read(value) == value else json.dumps(value)

    return read, write
