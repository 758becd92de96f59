"""Alert rules of a project: the list, and the forms to add, change and remove one."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from calibrl.schemas import AlertRule, AlertRuleSettings, NewAlertRule
from calibrl.schemas.alert_rules import condition_text
from calibrl.schemas.jobs import parse_label
from dashboard.forms.changes import change
from dashboard.markup import as_markdown, moment
from dashboard.reads import administration, service

KINDS = {
    "below": "Below a limit",
    "above": "Above a limit",
    "not_finite": "NaN or infinite",
    "worse_than_best": "Worse than its best value",
    "no_progress": "No step for some minutes",
}
BEST = {"highest": "The highest value", "lowest": "The lowest value"}


def draw(project: str) -> None:
    """Draw the alert rules of a project."""
    st.write("An alert rule is a condition on a metric of jobs. Its alerts are shown with those of the health rules.")
    for rule in administration.alert_rules(project):
        _rule(rule)
    with st.container(border=True):
        st.subheader("Add alert rule", anchor=False)
        name = st.text_input("Name", max_chars=63, placeholder="low-entropy", key=f"rule-name-{project}")
        fields = _fields(f"new-{project}", {})
        if st.button("Add alert rule", type="primary"):
            values = {"project": project, "name": name, **fields}
            _save(
                values,
                lambda checked: service.client().add_alert_rule(NewAlertRule.model_validate(checked)),
                f"Alert rule {name} added.",
            )


def _rule(rule: AlertRule) -> None:
    with st.container(border=True, key=f"card-rule-{rule.id}"):
        st.write(f"**{as_markdown(rule.name)}** · by {as_markdown(rule.created_by)}, {moment(rule.created_at)}")
        st.write(f"Condition: {as_markdown(condition_text(rule.condition))}")
        if rule.job_names or rule.labels:
            limits = [rule.job_names or "*", *(f"{key}={value}" for key, value in rule.labels.items())]
            st.caption(f"Only jobs: {as_markdown(' '.join(limits))}")
        with st.container(horizontal=True):
            with st.popover("Change"):
                fields = _fields(str(rule.id), rule.model_dump(mode="json"))
                if st.button("Save alert rule", key=f"save-{rule.id}", type="primary"):
                    _save(
                        fields,
                        lambda checked: service.client().put_alert_rule(
                            rule.id, AlertRuleSettings.model_validate(checked)
                        ),
                        f"Alert rule {rule.name} changed.",
                    )
            with st.popover("Remove"):
                if st.button("Remove alert rule", key=f"drop-{rule.id}", type="primary"):
                    change(lambda: service.client().remove_alert_rule(rule.id), f"Alert rule {rule.name} removed.")


def _save(fields: dict[str, Any], send: Callable[[dict[str, Any]], object], done: str) -> None:
    """Send the fields with their labels as a mapping, or show which text is not a label."""
    try:
        labels = dict(map(parse_label, fields["labels"]))
    except ValueError as error:
        st.text(str(error))
        return
    change(lambda: send({**fields, "labels": labels}), done)


def _fields(key: str, now: dict[str, Any]) -> dict[str, Any]:
    """Draw the fields of a rule, filled in with its present values. Return what they hold, the labels as texts."""
    condition = now.get("condition", {})
    kinds = list(KINDS)
    kind = st.selectbox(
        "Fires if the metric is", kinds, kinds.index(condition.get("type", "below")), KINDS.__getitem__, f"kind-{key}"
    )
    fields: dict[str, Any] = {"type": kind}
    if kind == "no_progress":
        fields["minutes"] = st.number_input("Minutes", value=condition.get("minutes", 30), step=1, key=f"minutes-{key}")
    else:
        usual = "validation/accuracy" if kind == "worse_than_best" else "exploration/entropy"
        fields["metric"] = st.text_input("Metric", condition.get("metric", usual), 200, f"metric-{kind}-{key}")
    if kind in ("below", "above"):
        fields["limit"] = st.number_input("Limit", value=condition.get("limit", 0.05), format="%g", key=f"limit-{key}")
    if kind == "worse_than_best":
        fields["by"] = st.number_input(
            "Worse by more than", value=condition.get("by", 0.05), format="%g", key=f"by-{key}"
        )
        best = list(BEST)
        place = best.index(condition.get("best", "highest"))
        fields["best"] = st.radio("The best value is", best, place, BEST.__getitem__, f"best-{key}", horizontal=True)
    if kind not in ("not_finite", "no_progress"):
        fields["steps"] = st.number_input(
            "Values in a row", value=condition.get("steps", 1), step=1, key=f"steps-{key}"
        )
    names = st.text_input("Only jobs named", now.get("job_names") or "", 120, f"names-{key}", placeholder="sweep-*")
    texts = [f"{label}={value}" for label, value in now.get("labels", {}).items()]
    labels = st.multiselect(
        "Only jobs with labels", texts, texts, key=f"labels-{key}", accept_new_options=True,
        placeholder="key=value, then Enter",
    )  # fmt: skip
    return {"condition": fields, "job_names": names.strip() or None, "labels": labels}
