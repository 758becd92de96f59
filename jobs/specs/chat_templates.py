"""Syntax of chat templates, as transformers compiles them. A template is parsed, not executed: a compiler computes
constants, and `{{ 9 ** 9 ** 9 }}` would never end.
"""

from collections.abc import Iterator

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """The block `{% generation %}`, which marks text of the assistant."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


_ENVIRONMENT = ImmutableSandboxedEnvironment(extensions=[_Generation, loopcontrols])
_DECIDED = (nodes.If, nodes.CondExpr)  # parts with a condition: an unknown name there can be one that is never reached


def template_fault(template: str) -> str | None:
    """Return why a chat template cannot be compiled, or None."""
    try:
        tree = _ENVIRONMENT.parse(template)
        unknown = next(_unknown_names(tree), None)
    except TemplateSyntaxError as error:
        return f"line {error.lineno} of the template: {error.message}"
    except RecursionError:
        return "the template is nested too deep"
    return unknown


def _unknown_names(node: nodes.Node) -> Iterator[str]:
    """Yield why the names of filters and tests cannot be compiled."""
    for kind, known in ((nodes.Filter, _ENVIRONMENT.filters), (nodes.Test, _ENVIRONMENT.tests)):
        if isinstance(node, kind) and node.name not in known:
            yield f"line {node.lineno} of the template: there is no {kind.__name__.lower()} {node.name!r}"
    if not isinstance(node, _DECIDED):
        for child in node.iter_child_nodes():
            yield from _unknown_names(child)
