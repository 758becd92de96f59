"""Checks of the source of a `grade`: nothing of it runs."""

import pytest

from calibrl_core.verifiers.grader_source import MOST_SOURCE, check_source, imported_names, needed_imports


@pytest.mark.parametrize(
    "source",
    [
        "def grade(sample, item): return 1.0",
        "def grade(sample, item, *, strict=True): return 1.0",
        "def grade(*both): return 1.0",
        "class grade: pass\ndef grade(sample, item): return 1.0",
        "x = [" + "{}, " * 4097 + "]\ndef grade(sample, item): return 1.0",
        "raise SystemExit\ndef grade(sample, item): return 1.0",
    ],
)
def test_a_source_with_a_grade_is_accepted(source: str) -> None:
    check_source(source)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "no function 'grade'"),
        ("def grades(sample, item): pass", "no function 'grade'"),
        ("if 1:\n    def grade(sample, item): pass", "at the top level"),
        ("x = 1\ndef grade(sample): pass", "line 2: 'grade' must take two arguments"),
        ("def grade(sample, item, more): pass", "line 1: 'grade' must take two arguments"),
        ("def grade(sample, item, *, more): pass", "line 1: 'grade' must take two arguments"),
        ("async def grade(sample, item): pass", "line 1: 'grade' must be a plain function"),
        ("x = 1\ndef grade(sample, item:\n", r"line 2: '\(' was never closed"),
        ("x = 1\nreturn 2", "line 2: 'return' outside function"),
        ("x = 1\n  y = 2", "line 2: unexpected indent"),
        ("\0", "null bytes"),
        ("x = '\ud800'", "character 5 is half a surrogate pair"),
        ("x = " + "-" * 100_000 + "1", "nested too deeply"),
        ("x = 1" + "+1" * 50_000, "nested too deeply"),
        ("x = f'" + "{a}" * 4097 + "'", "more than 4096 braces"),
        ("#" + "é" * (MOST_SOURCE // 2), f"{MOST_SOURCE + 1} bytes are too long"),
    ],
)
def test_another_source_is_refused_with_its_line(source: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_source(source)


def test_imports_are_found_anywhere() -> None:
    source = (
        "import a.b as c, d\nfrom . import e\nfrom .f import g\ndef grade(s, i):\n    from h.i import j\nimport this"
    )
    assert imported_names(source) == ["a", "d", "h"]


def test_imports_that_may_be_absent_are_not_needed() -> None:
    source = """
try:
    import numpy, json
except (ImportError, OSError):
    import array
else:
    import one.two
try:
    import three
except ValueError:
    pass
def grade(sample, item):
    from four.five import six
    import three
"""
    assert needed_imports(source) == {"array": 5, "four": 13, "one": 7, "three": 9}
