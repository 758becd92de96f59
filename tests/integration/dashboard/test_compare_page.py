"""The compare page: several jobs' curves and what differs between their specs."""

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.palette import MODELS
from tests.support.dashboard.pages import finished, html, open_page
from tests.support.dashboard.world import HOSTILE, World

pytestmark = pytest.mark.integration


def compare_page(*jobs: object) -> AppTest:
    return open_page("compare", jobs=",".join(map(str, jobs)))


def test_a_comparison_needs_two_jobs(world: World) -> None:
    job = world.add()
    assert "Select two or more jobs" in html(compare_page(job.id))


def test_two_jobs_and_their_differences_are_shown(world: World) -> None:
    first = world.add(name="one", spec={"algorithm": {"type": "calibrl"}})
    second = world.add(name="two", spec={"algorithm": {"type": "grpo"}})
    for job in (first, second):
        world.measure(job, range(1, 41))
    app = compare_page(first.id, second.id)
    text = html(app)
    assert "<code>algorithm.type</code>" in text and "<code>algorithm.negative_slope</code>" in text
    assert "<code>kind</code>" not in text
    assert f'href="job?id={first.id}"' in text and f'href="job?id={second.id}"' in text
    assert app.multiselect[0].value == [first.id, second.id]
    assert any(path.startswith("/v1/metrics?") for path in world.requests)


def test_names_and_specs_are_inert(world: World) -> None:
    first = world.add(name="a", spec={"labels": {"note": HOSTILE}})
    second = world.add(name="b", spec={"labels": {"note": "x"}})
    text = html(compare_page(first.id, second.id))
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_seeds_of_one_config_are_one_line_or_one_line_each(world: World) -> None:
    spec = {"algorithm": {"type": "grpo"}}
    jobs = [world.add(name="grpo", spec=spec | {"seed": seed}) for seed in (1, 2)]
    jobs.append(world.add(name="calibrl", spec={"algorithm": {"type": "calibrl"}, "seed": 1}))
    for job in jobs:
        world.measure(job, range(1, 41))
    app = compare_page(*(job.id for job in jobs))
    [toggle] = app.toggle
    assert toggle.value
    assert len({colour for colour in MODELS if f"color:{colour}" in html(app)}) == 2
    assert len({colour for colour in MODELS if f"color:{colour}" in html(finished(toggle.set_value(False).run()))}) == 3


def test_jobs_of_different_configs_cannot_be_grouped(world: World) -> None:
    jobs = [world.add(spec={"steps": steps}) for steps in (1, 2)]
    app = compare_page(*(job.id for job in jobs))
    assert not app.toggle
    assert "No evaluations yet" in " ".join(caption.value for caption in app.caption)
