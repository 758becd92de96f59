"""Checks of the source of a user's `grade`, without running it."""

import ast
import re
import sys
from functools import lru_cache

MOST_SOURCE = 256 * 1024  # bytes of UTF-8
MOST_BRACES = 4096  # beside a formatted string: Python 3.11 compiles those in quadratic time
FUNCTION = "grade"
_FORMATTED = re.compile(r"""\b(?:[fF][rR]?|[rR][fF])['"]""")


@lru_cache(maxsize=32)  # a spec is read several times
def check_source(source: str) -> None:
    """Check that a source compiles and has a function `grade(sample, item)`.

    Raises:
        ValueError: it does not; the message has the line.
    """
    try:
        size = len(source.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is half a surrogate pair: remove it") from error
    if size > MOST_SOURCE:
        raise ValueError(f"{size} bytes are too long; at most {MOST_SOURCE} bytes")
    if source.count("{") > MOST_BRACES and _FORMATTED.search(source):
        raise ValueError(f"formatted strings and more than {MOST_BRACES} braces: put tables into columns of the data")
    try:
        tree = ast.parse(source)
        compile(tree, "source", "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except ValueError as error:  # NUL
        raise ValueError(f"the source does not compile: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("the source is nested too deeply to compile: write it in shorter expressions") from error
    _check_function(tree)


def _check_function(tree: ast.Module) -> None:
    found: ast.stmt | None = None
    for node in tree.body:  # the last definition counts
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == FUNCTION
        found = node if named else found
    if found is None:
        raise ValueError("there is no function 'grade': define def grade(sample, item) at the top level")
    if not isinstance(found, ast.FunctionDef):
        raise ValueError(f"line {found.lineno}: 'grade' must be a plain function: def grade(sample, item)")
    arguments = found.args
    places = len(arguments.posonlyargs) + len(arguments.args)
    required = places - len(arguments.defaults)
    unset = any(default is None for default in arguments.kw_defaults)
    if required > 2 or (places < 2 and not arguments.vararg) or unset:
        raise ValueError(f"line {found.lineno}: 'grade' must take two arguments: def grade(sample, item)")


@lru_cache(maxsize=32)
def imported_names(source: str) -> list[str]:
    """Return the packages of the top level that a source imports anywhere, without `__main__` and relative ones."""
    names = {name for node in ast.walk(ast.parse(source)) for name in _imported(node)}
    return sorted(names - {"__main__"} - _WITH_EFFECTS)


@lru_cache(maxsize=32)
def needed_imports(source: str) -> dict[str, int]:
    """Return the packages that a source cannot do without, and the first line that imports each: those whose absence
    no `except` expects.
    """
    found, waiting = dict[str, int](), list[ast.AST]([ast.parse(source)])
    while waiting:
        node = waiting.pop()
        for name in _imported(node):
            found[name] = min(getattr(node, "lineno", 1), found.get(name, sys.maxsize))
        inner = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Try) and any(map(_expects_absence, node.handlers)):
            inner = [*node.handlers, *node.orelse, *node.finalbody]
        waiting += inner
    return {name: line for name, line in sorted(found.items()) if name != "__main__"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


def _expects_absence(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return not names.isdisjoint({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


_WITH_EFFECTS = {"antigravity", "this"} & sys.stdlib_module_names
