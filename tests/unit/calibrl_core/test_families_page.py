"""docs/reference/families.md lists every family that `make test-families` runs."""

import re

from tests.families import table, text


def test_the_page_lists_every_family_and_what_ran() -> None:
    rows = re.findall(r"^\| (?!Family \|)(.+?) \|.*\| (.+?) \|$", table.PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == [*table.VISION, *text.FAMILIES]
    assert {name for name, ran in rows if ran == "whole"} == {*text.WITHOUT_LORA}
    assert {ran for _, ran in rows} == {"whole", "whole, LoRA"}
    assert len(table.VISION) >= 20
    assert len(text.FAMILIES) >= 28
