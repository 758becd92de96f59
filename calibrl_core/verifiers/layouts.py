"""One writing for what has several layouts: matrices, vectors, systems of equations, lists on several lines, sets."""

import re

_ENVIRONMENT = r"\\begin ?\{(?P<name>[pbBv]?matrix|smallmatrix|array|cases|aligned|align\*?)\}(?: ?\{[lcr| ]*\})?"
_BLOCK = re.compile(
    rf"(?P<open>\\[{{|]|[(\[.])? ?{_ENVIRONMENT}(?P<body>.*?)\\end ?\{{(?P=name)\}} ?(?P<close>\\?[)\].}}])?", re.DOTALL
)
_ROW_END = re.compile(r"\\\\(?: ?\[[^\]]*\])?|\\cr(?![A-Za-z])")
_NESTED = re.compile(r"\[ ?(\[[^\[\]]*\](?: ?, ?\[[^\[\]]*\])+) ?\]")
_BULLET = re.compile(r"^ *(?:[-*•]|\d+[.)]) +")
_FENCE = re.compile(r"\s*(?:`{3,}\w*|\${1,2}|\\[\[\]])\s*")  # a line around the answer
_SYSTEMS = ("cases", "aligned", "align", "align*")


def one_layout(text: str) -> str:
    """Return the text with every matrix as `pmatrix`, and every system of equations as a list with commas."""
    return _NESTED.sub(_of_lists, _BLOCK.sub(_of_block, text))


def _of_block(found: re.Match[str]) -> str:
    rows = [row.strip() for row in _ROW_END.split(found["body"]) if row.strip()]
    opening, closing = found["open"] or "", found["close"] or ""
    if found["name"] in _SYSTEMS or (opening.endswith("{") and found["name"] == "array"):
        kept = closing if opening != r"\{" and closing != "." else ""
        return ("" if opening == r"\{" else opening) + _chained(", ".join(row.replace("&", "") for row in rows)) + kept
    name = "vmatrix" if found["name"] == "vmatrix" else "pmatrix"
    brackets = opening in ("(", "[") and closing in (")", "]")
    matrix = rf"\begin{{{name}}}" + r"\\".join(rows) + rf"\end{{{name}}}"
    return matrix if brackets or not (opening or closing) else opening + matrix + closing


def _chained(rows: str) -> str:
    """Return rows with commas, without the comma before a row that continues a chain: `x = 2/4, = 1/2`."""
    return re.sub(r", ?(?==)", " ", rows)


def _of_lists(found: re.Match[str]) -> str:
    rows = [row.strip(" []") for row in re.split(r"\] ?, ?\[", found[1])]
    if len({row.count(",") for row in rows}) > 1:
        return found[0]
    return r"\begin{pmatrix}" + r"\\".join(row.replace(",", "&") for row in rows) + r"\end{pmatrix}"


def one_line(text: str) -> str:
    """Return the lines of a list as one line with commas; bullets and numbers of the lines are removed."""
    if "\\begin" in text:
        return text.replace("\n", " ")
    kept = (_BULLET.sub("", line).strip().rstrip(",;") for line in text.splitlines() if not _FENCE.fullmatch(line))
    lines = [line for line in kept if line]
    return ", ".join(lines)
