"""Data sets: the list, one with its first rows, uploads, and names on the hub."""

import html
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import streamlit as st
from pydantic import ValidationError

from calibrl.client import CalibrlError
from calibrl.schemas import Dataset, PreviewRow
from dashboard import paging, states
from dashboard.markup import chip, escape, file_link, moment, table
from dashboard.palette import EXPERT, NEUTRAL, WRONG
from dashboard.reads import catalogue, data
from dashboard.reads.downloads import dataset_address
from dashboard.views import completions
from dashboard.views.plan_summary import size

ALL = "all"
BEFORE = "data-before"  # the list's pages
LIST, UPLOAD, REGISTER = "List", "Upload a file", "From the hub"
MOST_MEGABYTES = 200  # of a file that passes through the dashboard's memory
IMAGE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
TITLES = ("Data set", "Project", "Kind", "Rows", "Size", "Experts", "Added", "By")
COLUMNS = ("question", "images", "answer", "expert")


def _experts(dataset: Dataset) -> str:
    return {True: "yes", False: "no", None: "–"}[dataset.has_experts]


def _row(dataset: Dataset) -> str:
    rows = "–" if dataset.rows is None else f"{dataset.rows:,}"
    weight = "–" if dataset.bytes is None else size(dataset.bytes)
    return (
        f'<tr><td><a href="data?id={dataset.id}" target="_self">{escape(dataset.name)}</a></td>'
        f'<td data-label="Project">{escape(dataset.project)}</td><td>{chip(dataset.format or "hub", NEUTRAL)}</td>'
        f'<td data-label="Rows">{rows}</td><td data-label="Size">{weight}</td>'
        f'<td data-label="Experts">{_experts(dataset)}</td>'
        f'<td data-label="Added">{escape(moment(dataset.created_at))}</td>'
        f'<td data-label="By">{escape(dataset.user)}</td></tr>'
    )


def _list() -> None:
    projects = catalogue.projects()
    chosen = ALL
    if len(projects) > 1:
        chosen = st.selectbox(
            "Project", [ALL, *projects], key="data-project", on_change=paging.begin, args=(BEFORE,), width=300
        )
    shown = catalogue.datasets(None if chosen == ALL else chosen, paging.after(BEFORE), catalogue.PAGE)
    if shown.data:
        st.html(table(TITLES, map(_row, shown.data)))
    else:
        states.empty("No data set yet", "Upload a JSONL or Parquet file, or give the name of one on the hub.")
    paging.buttons(BEFORE, shown)


def _added(dataset: Dataset) -> None:
    catalogue.changed()
    st.query_params.from_dict({"id": str(dataset.id)})
    st.rerun()


def _fault(error: dict[str, Any]) -> str:
    field = str(error.get("field", ""))
    place = f"row {field.removeprefix('rows.')}" if field.startswith("rows.") else field
    return f"<tr><td>{escape(place)}</td><td>{escape(error.get('message', ''))}</td></tr>"


def _refused(error: CalibrlError) -> None:
    """Why a file was not taken, row by row; or what else went wrong."""
    if not error.errors:
        states.trouble(error)
        return
    with st.container(border=True, key="faults"):
        st.html(chip("✕ nothing was kept", WRONG))
        st.text(error.detail or error.title)
        st.html(table(("Where", "What is wrong"), [_fault(dict(one)) for one in error.errors]))


def _upload(projects: list[str]) -> None:
    with st.container(border=True):
        file = st.file_uploader(
            "A JSONL or Parquet file, with its images in the rows",
            type=["jsonl", "parquet"],
            max_upload_size=MOST_MEGABYTES,
        )
        name = st.text_input("Name", placeholder="The file's own", max_chars=120)
        project = st.selectbox("Project", projects)
        with st.expander("Columns under other names"):
            columns = {column: st.text_input(f"Column with the {column}", max_chars=200) for column in COLUMNS}
        st.caption(f"Every row is checked before anything is kept. Above {MOST_MEGABYTES} MB: `calibrl data upload`.")
        pressed = st.button("Check and keep it", type="primary", disabled=file is None)
    if file is None or not pressed:
        return
    try:
        with st.spinner("Every row is being checked …"):
            dataset = data.client().upload(
                file,
                name.strip() or Path(file.name).stem,
                project,
                columns={column: given.strip() for column, given in columns.items() if given.strip()},
            )
    except CalibrlError as error:
        _refused(error)
        return
    _added(dataset)


def _register(projects: list[str]) -> None:
    with st.form("register"):
        hub = st.text_input("Name on the Hugging Face hub", placeholder="hiyouga/geometry3k", max_chars=200)
        split = st.text_input("Split", "train", max_chars=100)
        revision = st.text_input("Revision", placeholder="newest", max_chars=100)
        name = st.text_input("Name here", placeholder="The hub's own", max_chars=120)
        project = st.selectbox("Project", projects)
        st.caption("Only the name is noted: workers download the rows when a job wants them.")
        if not st.form_submit_button("Note it", type="primary"):
            return
    try:
        given = {"split": split.strip(), "revision": revision.strip() or None}
        dataset = data.client().register(name.strip() or hub.rpartition("/")[2], hub.strip(), project, **given)
    except ValidationError as error:
        faults = [{"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()]
        st.html(table(("Where", "What is wrong"), map(_fault, faults)))
        return
    except CalibrlError as error:
        _refused(error)
        return
    _added(dataset)


def _picture(address: str) -> str:
    """A small image that the service has made; nothing else is put into an address."""
    if not IMAGE.fullmatch(address):
        return ""
    return f'<img src="{html.escape(address)}" alt="An image of the row" style="max-width:100%;border-radius:.4rem">'


def _said(title: str, text: str, colour: str | None = None) -> str:
    edge = f"border-left:3px solid {colour};padding-left:.7rem" if colour else ""
    head = f'<div style="font-size:.75rem;opacity:.75;margin-top:.5rem">{title}</div>'
    return f'{head}<div style="{edge}">{completions.plain_box(text)}</div>'


def _preview_row(row: PreviewRow) -> None:
    with st.container(border=True, key=f"row-{row.row}"):
        pictures = "".join(map(_picture, row.images))
        left, right = st.columns([1, 4]) if pictures else (None, st.container())
        if left is not None:
            left.html(f'<div style="display:flex;flex-wrap:wrap;gap:.4rem">{pictures}</div>')
        texts = [_said("Before the question", earlier) for earlier in row.earlier]
        texts += [_said(f"Question of row {row.row}", row.question), _said("Answer", row.answer)]
        if row.expert is not None:
            texts.append(_said("Expert", row.expert, EXPERT))
        if row.data_source is not None:
            texts.append(_said("Source", row.data_source))
        right.html("".join(texts))
        if row.image_count > len(row.images):
            st.caption(f"{row.image_count} images; the first {len(row.images)} are shown.")


def _actions(dataset: Dataset) -> None:
    if dataset.format:
        st.html(file_link(dataset_address(dataset.id), f"Download, {dataset.format}"))
    if not data.me().may_change(dataset.project):
        return
    with st.popover("Delete", icon=":material/delete:"):
        st.write("The file goes for good. What jobs have learned from it stays; one that is yet to end prevents it.")
        if st.button("Yes, delete it", type="primary"):
            try:
                data.client().delete_dataset(dataset.id)
            except CalibrlError as error:
                st.text(error.detail or str(error))
                return
            catalogue.changed()
            st.query_params.clear()
            st.session_state["show"] = LIST
            st.rerun()


def _facts(dataset: Dataset) -> str:
    facts = [chip(f"project {dataset.project}", NEUTRAL)]
    if dataset.hub:
        facts += [chip(f"{dataset.hub.hub} on the hub", NEUTRAL), chip(f"split {dataset.hub.split}", NEUTRAL)]
    if dataset.format:
        facts += [chip(dataset.format, NEUTRAL), chip(f"{dataset.rows or 0:,} rows", NEUTRAL)]
        facts += [chip(size(dataset.bytes or 0), NEUTRAL), chip(f"experts: {_experts(dataset)}", EXPERT)]
    facts.append(chip(f"added {moment(dataset.created_at)} by {dataset.user}", NEUTRAL))
    return f'<div style="display:flex;flex-wrap:wrap;gap:.35rem">{"".join(facts)}</div>'


def _one(id: str) -> None:
    try:
        dataset = data.client().dataset(UUID(id))
    except ValueError:
        dataset = None
    except CalibrlError as error:
        if error.status != 404:
            raise
        dataset = None
    st.html('<a href="data" target="_self" style="color:inherit">← All data sets</a>')
    if dataset is None:
        states.empty("There is no such data set", "It was deleted, or belongs to a project that is not yours.")
        return
    title, action = st.columns([3, 2], vertical_alignment="center")
    title.html(f'<h1 style="overflow-wrap:anywhere;padding:0">{escape(dataset.name)}</h1>{_facts(dataset)}')
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        _actions(dataset)
    st.caption("In a job's spec:")
    st.code(f"data: {{dataset: {dataset.id}}}", language=None, wrap_lines=True)
    if dataset.hub:
        states.empty("Only a name here", "Its rows are on the hub; the worker of a job downloads them.")
        return
    for row in catalogue.preview(dataset.id):
        _preview_row(row)
    if (dataset.rows or 0) > 8:
        st.caption("The first rows are shown, as a job would read them; long texts are cut.")


def page() -> None:
    if "id" in st.query_params:
        _one(st.query_params["id"])
        return
    st.title("Data sets", anchor=False)
    projects = catalogue.own_projects()
    views = [LIST, UPLOAD, REGISTER] if projects else [LIST]
    view = st.segmented_control(
        "View", views, default=LIST, required=True, key="show", bind="query-params", label_visibility="collapsed"
    )
    if view == UPLOAD:
        _upload(projects)
    elif view == REGISTER:
        _register(projects)
    else:
        _list()


with states.explained():
    page()
