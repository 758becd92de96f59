"""docs/reference/families.md lists every family that `make test-families` runs."""

import re

from tests.families import table, text


def test_the_page_lists_every_family_and_what_ran() -> None:
    rows = re.findall(r"^\| (?!Family \|)(.+?) \|.*\| (.+?) \|$", table.PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == [*table.VISION, *text.FAMILIES]
    refused = {name for name, ran in rows if ran == "refused at load"}
    assert refused == {name for name, one in table.VISION.items() if one.refused}
    assert {name for name, ran in rows if ran == "whole"} == {*text.WITHOUT_LORA}
    assert {ran for name, ran in rows if name not in refused} == {"whole", "whole, LoRA"}
    assert len(table.VISION) - len(refused) >= 20
    assert len(text.FAMILIES) >= 28
