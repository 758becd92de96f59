"""Sampled completions: one group with its image, prompt, expert and every completion."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, Sample, SampleSummary
from dashboard import addresses, signin, states
from dashboard.markup import as_markdown, group_link, table
from dashboard.panels.common import LATEST, live_panel, show_if_no_sample
from dashboard.panels.panel import Panel
from dashboard.reads import live, service
from dashboard.views import completions, verdicts


def _read_step(job: Job, steps: dict[int, list[SampleSummary]]) -> int:
    """The step that `LATEST` shows: the latest when the panel was opened. A later one does not replace what is read."""
    latest, key = next(iter(steps)), f"read-step-{job.id}-{job.attempt}"
    if st.session_state.get(key) not in steps:
        st.session_state[key] = latest
    shown: int = st.session_state[key]
    if latest != shown and st.button(f"New samples: show step {latest}", icon=":material/update:", key="later-samples"):
        st.session_state[key] = shown = latest
    return shown


def _choose(job: Job, steps: dict[int, list[SampleSummary]]) -> SampleSummary:
    left, middle = st.columns(2, vertical_alignment="bottom")
    choices = [*map(str, reversed(steps)), LATEST]
    addresses.check("step", choices, LATEST)
    with left:
        step = st.select_slider("Step", choices, value=LATEST, key="step", bind="query-params")
    groups = steps[_read_step(job, steps) if step == LATEST else int(step)]
    numbers = [str(number + 1) for number in range(len(groups))]
    addresses.check("group", numbers, numbers[0])
    with middle:
        number = st.selectbox("Group", numbers, key="group", bind="query-params")
    _neighbours(choices, step, numbers, number)
    addresses.check("tint", completions.TINTS, next(iter(completions.TINTS)))
    st.segmented_control(
        "Colour tokens by",
        list(completions.TINTS),
        default=next(iter(completions.TINTS)),
        required=True,
        key="tint",
        bind="query-params",
    )
    return groups[int(number) - 1]


def _neighbours(steps: list[str], step: str, numbers: list[str], number: str) -> None:
    """Draw the buttons of the previous and next step and group."""

    def move(key: str, to: str) -> None:
        st.session_state[key] = to

    with st.container(horizontal=True):
        for title, key, options, at in (("step", "step", steps, step), ("group", "group", numbers, number)):
            place = options.index(at)
            for text, icon, to in (("Previous", "arrow_back", place - 1), ("Next", "arrow_forward", place + 1)):
                inside = 0 <= to < len(options)
                st.button(
                    f"{text} {title}", icon=f":material/{icon}:", key=f"{text}-{key}", disabled=not inside,
                    on_click=move, args=(key, options[to] if inside else at),
                )  # fmt: skip


@st.cache_resource(max_entries=256, show_spinner=False)
def _picture(job_id: UUID, sha256: str) -> str:
    return completions.picture_html(service.client().image(job_id, sha256))


def _prompt(job: Job, sample: Sample) -> None:
    group = sample.group
    with st.container(border=True, key="card-prompt"):
        picture, words = st.columns([1, 2.2]) if group["images"] else (None, st.container())
        if picture is not None:
            with picture:
                for sha256 in group["images"]:
                    st.html(_picture(job.id, sha256))
        with words:
            st.caption(f"Prompt {as_markdown(str(group['prompt_id']))}")
            st.html(completions.plain_box(group["prompt"]))
            st.caption("Reference answer")
            st.html(completions.plain_box(group["answer"]))


@st.cache_resource(max_entries=256, show_spinner=False)
def _completion(
    job_id: UUID, sample_id: int, tint: str, index: int, window: str, _settings: Mapping[str, Any], _sample: Sample
) -> str:
    """Return a completion as HTML, cached for all viewers: thousands of tokens take time to render.

    The caller has read the sample, so the viewer is allowed to see it.
    """
    completion = _sample.group["completions"][index]
    shown = completion | {"clipping": completions.clipping(completion, _settings)}
    experts = _sample.group.get("expert_tokens", ())  # samples of older versions have none
    return completions.completion_html(shown, _sample.group["expert"], completions.TINTS[tint], index, window, experts)


def _group(job: Job, summary: SampleSummary) -> None:
    try:
        sample = service.sample(job.id, summary.id)
        _prompt(job, sample)
    except CalibrlError as error:
        states.trouble(error)
        return
    tint = completions.TINTS[st.session_state["tint"]]
    reward = "" if summary.mean_reward is None else f", mean reward {summary.mean_reward:.2f}"
    st.caption(
        f"Step {summary.step}: {summary.passed} of {summary.size} correct{reward}. {tint.hint} "
        "Hover or tap a token for its value; arrow keys move between tokens."
    )
    window, shown = _choose_window(sample), _narrowed(sample)
    st.html(completions.legend(tint))
    if not shown:
        st.caption("No completion of this group matches.")
    for index, equal in shown:
        with st.container(border=True, key=f"card-completion-{index}"):
            if equal:
                numbers = ", ".join(str(number + 1) for number in [index, *equal])
                st.caption(f"{len(equal) + 1} equal completions: {numbers}")
            st.html(_completion(job.id, summary.id, tint.label, index, window, job.spec["algorithm"], sample))
            verdicts.buttons(job, summary.id, index)


def _narrowed(sample: Sample) -> list[tuple[int, list[int]]]:
    """Draw the filters of the completions. Return the places of those to show, each with those that are equal to it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kinds = st.pills("Show only", list(completions.KINDS), selection_mode="multi", key="completion-kinds")
        order = st.selectbox("Order", list(completions.ORDERS), key="completion-order", width=200)
        fold = st.toggle("Fold equal completions", value=True, key="completion-fold")
    return completions.selected(sample.group["completions"], kinds, order, fold=fold)


def _choose_window(sample: Sample) -> str:
    """Draw the choice of the coloured tokens, if there are too many for one window."""
    options = completions.windows(sample.group)
    if len(options) == 1:
        return options[0]
    return st.selectbox("Coloured tokens of each completion", options, key=f"window-{len(options)}")


@st.cache_data(ttl=30.0, max_entries=64, show_spinner=False)
def _matches(key: str, job_id: UUID, text: str, low: float | None, high: float | None) -> tuple[list[int], bool]:
    """Return the ids of the matching groups, and true if there are more. Cached per API key."""
    page = service.client().samples(job_id, q=text or None, min_reward=low, max_reward=high)
    return [summary.id for summary in page.data], page.has_more


def _search(job: Job, steps: dict[int, list[SampleSummary]]) -> None:
    """Search groups by text and reward; show the matches as links."""
    with st.expander("Search all groups", icon=":material/search:"):
        words, left, right = st.columns([3, 1, 1], vertical_alignment="bottom")
        text = words.text_input("Text in prompt, answer, expert or completion", key="search", max_chars=200).strip()
        low = left.number_input("Min mean reward", value=None, key="search_low")
        high = right.number_input("Max mean reward", value=None, key="search_high")
        if not text and low is None and high is None:
            return
        try:
            ids, more = _matches(signin.key(), job.id, text, low, high)
        except CalibrlError as error:
            st.text(str(error))
            return
        matches = [
            (step, number, summary)
            for step, groups in steps.items()
            for number, summary in enumerate(groups, 1)
            if summary.id in ids
        ]
        st.caption(f"{'First ' if more else ''}{len(matches)} group{'s' if len(matches) != 1 else ''}")
        st.html(table(("Prompt", "Step", "Correct", "Mean reward"), [_match_row(job, *match) for match in matches]))


def _match_row(job: Job, step: int, number: int, summary: SampleSummary) -> str:
    reward = "–" if summary.mean_reward is None else f"{summary.mean_reward:.2f}"
    return (
        f"<tr><td>{group_link(job.id, step, number, summary.prompt_id)}</td>"
        f'<td data-label="Step">{step}</td><td data-label="Correct">{summary.passed} of {summary.size}</td>'
        f'<td data-label="Mean reward">{reward}</td></tr>'
    )


def _panel(job: Job) -> None:
    samples = live.samples(job.id, job.attempt)
    with states.tolerated():
        samples.refresh()
    steps = samples.by_step()
    if show_if_no_sample(job, steps):
        return
    _search(job, steps)
    verdicts.trust(job)
    _group(job, _choose(job, steps))


draw = live_panel(_panel)


PANELS = (Panel("Rollouts", draw, 50, of_rollouts=True),)
