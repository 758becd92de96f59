"""Formulas over named numbers, as text: parsed to a tree of known operations and never run as code."""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping

LONGEST = 1_000  # characters
MOST_NODES = 200
OPERATIONS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
}
SEVERAL = ("min", "max")  # functions of two or more values; the others have one


def check(formula: str, names: Collection[str]) -> None:
    """Check a formula: its size, its operations, and that it has no other names.

    Raises:
        ValueError: it cannot be used; the message has the place and the remedy.
    """
    nodes = [node for node in ast.walk(_parse(formula)) if not isinstance(node, ast.operator | ast.unaryop | ast.Load)]
    if len(nodes) > MOST_NODES:
        raise ValueError(f"the formula has {len(nodes)} parts; {MOST_NODES} at most")
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    for node in nodes:
        if isinstance(node, ast.Name) and node not in called and node.id not in names:
            raise ValueError(f"the formula names {node.id!r}; there are {', '.join(sorted(names))}")
        if not _is_known(node):
            text = ast.unparse(node)[:40]
            functions = ", ".join(FUNCTIONS)
            raise ValueError(f"the formula has {text!r}; use numbers, names, + - * / ^ and {functions}")


def value_of(formula: str, values: Mapping[str, float]) -> float:
    """Return the value of a checked formula.

    Raises:
        ArithmeticError, ValueError: it has none, such as a division by zero.
    """
    value = _value(_parse(formula), values)
    if isinstance(value, complex) or not math.isfinite(value):
        raise ValueError(f"the formula gives {value}, which is no finite number")
    return float(value)


def _parse(formula: str) -> ast.expr:
    if len(formula) > LONGEST:
        raise ValueError(f"the formula has {len(formula)} characters; {LONGEST} at most")
    try:
        return ast.parse(formula.replace("^", "**").strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the formula cannot be read: {getattr(error, 'msg', error)}") from None


def _is_known(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
        case ast.Name():
            return True
        case ast.BinOp(op=op) | ast.UnaryOp(op=op):
            return type(op) in OPERATIONS
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in FUNCTIONS and (len(arguments) >= 2 if name in SEVERAL else len(arguments) == 1)
    return False


def _value(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return values[name]
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATIONS[type(op)](_value(left, values), _value(right, values))
        case ast.UnaryOp(op=op, operand=operand):
            return OPERATIONS[type(op)](_value(operand, values))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return float(FUNCTIONS[name](*(_value(each, values) for each in arguments)))
    raise ValueError(f"the formula has {ast.unparse(node)!r}")
