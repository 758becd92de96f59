"""What did the model actually write? One sampled group: image, prompt, expert, and every completion."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import CalibrlError
from calibrl.schemas import Job, Sample, SampleSummary
from dashboard import signin, states
from dashboard.markup import group_link, table
from dashboard.panels.common import NEWEST, algorithm, draw_live, waiting
from dashboard.reads import data, live
from dashboard.views import completions


def draw(job: Job) -> None:
    if algorithm(job) == "sft":
        states.empty("No rollouts", "Supervised fine-tuning samples nothing while it trains.")
    elif not waiting(job):
        draw_live(job, _panel)


def _choose(steps: dict[int, list[SampleSummary]]) -> SampleSummary:
    left, middle, right = st.columns([1, 1, 2.4], vertical_alignment="bottom")
    with left:
        step = st.selectbox("Step", [NEWEST, *map(str, steps)], key="step", bind="query-params")
    groups = steps[next(iter(steps)) if step == NEWEST else int(step)]
    with middle:
        numbers = [str(number + 1) for number in range(len(groups))]
        number = st.selectbox("Group", numbers, key="group", bind="query-params")
    with right:
        st.segmented_control(
            "Colour tokens by",
            list(completions.TINTS),
            default=next(iter(completions.TINTS)),
            required=True,
            key="tint",
            bind="query-params",
        )
    return groups[int(number) - 1]


@st.cache_resource(max_entries=256, show_spinner=False)
def _picture(job_id: UUID, sha256: str) -> str:
    return completions.picture_html(data.client().image(job_id, sha256))


def _prompt(job: Job, sample: Sample) -> None:
    group = sample.group
    with st.container(border=True, key="card-prompt"):
        picture, words = st.columns([1, 2.2]) if group["images"] else (None, st.container())
        if picture is not None:
            with picture:
                for sha256 in group["images"]:
                    st.html(_picture(job.id, sha256))
        with words:
            st.caption("Prompt")
            st.html(completions.plain_box(group["prompt"]))
            st.caption("Expected answer")
            st.html(completions.plain_box(group["answer"]))


@st.cache_resource(max_entries=256, show_spinner=False)
def _completion(
    job_id: UUID, sample_id: int, tint: str, index: int, _settings: Mapping[str, Any], _sample: Sample
) -> str:
    """Made once for all who look, and not at every tick: thousands of tokens take a while. Whoever asks has read the
    sample."""
    completion = _sample.group["completions"][index]
    shown = completion | {"clipping": completions.clipping(completion, _settings)}
    return completions.completion_html(shown, _sample.group["expert"], completions.TINTS[tint], index)


def _group(job: Job, summary: SampleSummary) -> None:
    try:
        sample = data.sample(job.id, summary.id)
        _prompt(job, sample)
    except CalibrlError as error:
        states.trouble(error)
        return
    tint = completions.TINTS[st.session_state["tint"]]
    reward = "" if summary.mean_reward is None else f", mean reward {summary.mean_reward:.2f}"
    st.caption(
        f"Step {summary.step}: {summary.passed} of {summary.size} correct{reward}. {tint.hint} "
        "Point at a token for its value, or tap it; arrow keys go from one to the next."
    )
    st.html(completions.legend(tint))
    for index in range(len(sample.group["completions"])):
        with st.container(border=True, key=f"card-completion-{index}"):
            st.html(_completion(job.id, summary.id, tint.label, index, job.spec["algorithm"], sample))


@st.cache_data(ttl=30.0, max_entries=64, show_spinner=False)
def _found(key: str, job_id: UUID, text: str, least: float | None, most: float | None) -> tuple[list[int], bool]:
    """Ids of the groups that match, if the owner of the key may see them, and whether there are more."""
    page = data.client().samples(job_id, q=text or None, min_reward=least, max_reward=most)
    return [summary.id for summary in page.data], page.has_more


def _search(job: Job, steps: dict[int, list[SampleSummary]]) -> None:
    """Groups by what they say and earn, as links."""
    with st.expander("Search all groups", icon=":material/search:"):
        words, low, high = st.columns([3, 1, 1], vertical_alignment="bottom")
        text = words.text_input("Text in prompt, answer, expert or completion", key="sought", max_chars=200).strip()
        least = low.number_input("Mean reward at least", value=None, key="sought_least")
        most = high.number_input("at most", value=None, key="sought_most")
        if not text and least is None and most is None:
            return
        try:
            ids, more = _found(signin.key(), job.id, text, least, most)
        except CalibrlError as error:
            st.text(str(error))
            return
        places = [
            (step, number, summary)
            for step, groups in steps.items()
            for number, summary in enumerate(groups, 1)
            if summary.id in ids
        ]
        st.caption(f"{'The first ' if more else ''}{len(places)} group{'s' if len(places) != 1 else ''}")
        st.html(table(("Prompt", "Step", "Correct", "Mean reward"), [_match(job, *place) for place in places]))


def _match(job: Job, step: int, number: int, summary: SampleSummary) -> str:
    reward = "–" if summary.mean_reward is None else f"{summary.mean_reward:.2f}"
    return (
        f"<tr><td>{group_link(job.id, step, number, summary.prompt_id)}</td>"
        f'<td data-label="Step">{step}</td><td data-label="Correct">{summary.passed} of {summary.size}</td>'
        f'<td data-label="Mean reward">{reward}</td></tr>'
    )


def _panel(job: Job) -> None:
    kept = live.samples(job.id, job.attempt)
    with states.tolerated():
        kept.refresh()
    steps = kept.by_step()
    if not steps:
        states.empty("No group yet", "Some groups are kept whole every few steps; the first comes with the first step.")
        return
    _search(job, steps)
    _group(job, _choose(steps))
