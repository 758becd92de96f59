"""The jobs list: its pages."""

import pytest

from .conftest import World
from .test_pages import finished, html, jobs_page

PAGE = 30  # jobs shown at once


@pytest.mark.parametrize(("sort", "back", "on"), [("newest", "Newer", "Older"), ("name", "Back", "More")])
def test_the_list_goes_on_and_back_a_page(world: World, sort: str, back: str, on: str) -> None:
    names = [f"job-{number:02d}" for number in range(2 * PAGE + 1)]
    for name in names:
        world.add(name=name)

    def shown() -> list[str]:
        return [name for name in names if f">{name}</a>" in html(app)]

    def press(label: str) -> None:
        next(button for button in app.button if button.label == label).click().run()
        finished(app)

    app = jobs_page()
    app.selectbox(key="sort").set_value(sort).run()
    first = shown()
    assert len(first) == PAGE and back not in [button.label for button in app.button]
    press(on)
    second = shown()
    press(on)
    assert {*first, *second, *shown()} == {*names} and len(shown()) == 1
    assert on not in [button.label for button in app.button]
    press(back)
    assert shown() == second
    app.text_input(key="q").set_value("job-").run()
    assert shown() == first  # another list begins with its first page
