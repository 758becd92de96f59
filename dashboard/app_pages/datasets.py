"""Datasets: the list, a preview, uploads, and references to the Hugging Face hub."""

import html
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import streamlit as st
from pydantic import ValidationError

from calibrl.client import CalibrlError
from calibrl.schemas import Dataset, PreviewRow, UploadOptions
from calibrl.schemas.byte_counts import file_size
from dashboard import paging, states
from dashboard.markup import chip, escape, file_link, moment, table
from dashboard.palette import EXPERT, NEUTRAL, WRONG
from dashboard.reads import catalogue, service
from dashboard.reads.downloads import dataset_address
from dashboard.views import completions, data_report

ALL = "all"
PAGES = "data-before"  # key of the list's pages
LIST, UPLOAD, REGISTER = "List", "Upload a file", "From the hub"
MAX_MEGABYTES = 50  # of an uploaded file: it passes through the memory of the dashboard
IMAGE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
TITLES = ("Dataset", "Project", "Format", "Rows", "Size", "Experts", "Added", "By")
COLUMNS = ("question", "images", "answer", "expert")
FORMATS = UploadOptions.model_json_schema()["properties"]["format"]["enum"]


def _experts(dataset: Dataset) -> str:
    return {True: "yes", False: "no", None: "–"}[dataset.has_experts]


def _row(dataset: Dataset) -> str:
    rows = "–" if dataset.rows is None else f"{dataset.rows:,}"
    weight = "–" if dataset.bytes is None else file_size(dataset.bytes)
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
            "Project", [ALL, *projects], key="data-project", on_change=paging.reset, args=(PAGES,), width=300
        )
    shown = catalogue.datasets(None if chosen == ALL else chosen, paging.after(PAGES), catalogue.PAGE)
    if shown.data:
        st.html(table(TITLES, map(_row, shown.data)))
    else:
        states.empty("No datasets yet", "Upload a JSON or Parquet file, or register a dataset of the Hugging Face hub.")
    paging.buttons(PAGES, shown)


def _added(dataset: Dataset) -> None:
    catalogue.clear_dataset_caches()
    st.query_params.from_dict({"id": str(dataset.id)})
    st.rerun()


def _error_row(error: dict[str, Any]) -> str:
    field = str(error.get("field", ""))
    place = f"row {field.removeprefix('rows.')}" if field.startswith("rows.") else field
    return f"<tr><td>{escape(place)}</td><td>{escape(error.get('message', ''))}</td></tr>"


def _refused(error: CalibrlError) -> None:
    """Draw the errors of a rejected upload, row by row, or another error."""
    if not error.errors:
        states.trouble(error)
        return
    with st.container(border=True, key="faults"):
        st.html(chip("✕ Upload rejected", WRONG))
        st.text(error.detail or error.title)
        st.html(table(("Field", "Error"), [_error_row(dict(fault)) for fault in error.errors]))


def _upload(projects: list[str]) -> None:
    with st.container(border=True):
        file = st.file_uploader(
            "JSON or Parquet file, with images in the rows",
            type=["jsonl", "json", "ndjson", "parquet", "gz", "zst"],
            max_upload_size=MAX_MEGABYTES,
        )
        name = st.text_input("Display name", placeholder="Default: file name", max_chars=120)
        project = st.selectbox("Project", projects)
        with st.expander("Row format and columns"):
            form = st.selectbox("Row format", FORMATS, help="auto: the first format that the columns fit.")
            columns = {column: st.text_input(f"Column with the {column}", max_chars=200) for column in COLUMNS}
        st.caption(f"All rows are validated first. Files above {MAX_MEGABYTES} MB: `calibrl data upload`.")
        pressed = st.button("Validate and upload", type="primary", disabled=file is None)
    if file is None or not pressed:
        return
    try:
        with st.spinner("Validating rows…"):
            dataset = service.client().upload(
                file,
                name.strip() or Path(file.name).stem,
                project,
                columns={column: given.strip() for column, given in columns.items() if given.strip()},
                format=form,
            )
    except CalibrlError as error:
        _refused(error)
        return
    _added(dataset)


def _register(projects: list[str]) -> None:
    with st.form("register"):
        hub = st.text_input("Repository on the Hugging Face hub", placeholder="hiyouga/geometry3k", max_chars=200)
        split = st.text_input("Split", "train", max_chars=100)
        revision = st.text_input("Revision", placeholder="Default: latest", max_chars=100)
        name = st.text_input("Display name", placeholder="Default: repository name", max_chars=120)
        project = st.selectbox("Project", projects)
        st.caption("Only a reference is stored. Workers download the rows when a job needs them.")
        if not st.form_submit_button("Register", type="primary"):
            return
    try:
        options = {"split": split.strip(), "revision": revision.strip() or None}
        dataset = service.client().register(name.strip() or hub.rpartition("/")[2], hub.strip(), project, **options)
    except ValidationError as error:
        faults = [{"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]} for fault in error.errors()]
        st.html(table(("Field", "Error"), map(_error_row, faults)))
        return
    except CalibrlError as error:
        _refused(error)
        return
    _added(dataset)


def _picture(address: str) -> str:
    """A preview image as a PNG data URL of the service; any other URL is dropped."""
    if not IMAGE.fullmatch(address):
        return ""
    return f'<img src="{html.escape(address)}" alt="Image of the row" style="max-width:100%;border-radius:.4rem">'


def _text(title: str, text: str, colour: str | None = None) -> str:
    edge = f"border-left:3px solid {colour};padding-left:.7rem" if colour else ""
    head = f'<div style="font-size:.75rem;opacity:.75;margin-top:.5rem">{title}</div>'
    return f'{head}<div style="{edge}">{completions.plain_box(text)}</div>'


def _preview_row(row: PreviewRow) -> None:
    with st.container(border=True, key=f"row-{row.row}"):
        pictures = "".join(map(_picture, row.images))
        left, right = st.columns([1, 4]) if pictures else (None, st.container())
        if left is not None:
            left.html(f'<div style="display:flex;flex-wrap:wrap;gap:.4rem">{pictures}</div>')
        texts = [_text("Earlier turn", earlier) for earlier in row.earlier]
        texts += [_text(f"Question, row {row.row}", row.question), _text("Answer", row.answer)]
        if row.expert is not None:
            texts.append(_text("Expert", row.expert, EXPERT))
        if row.data_source is not None:
            texts.append(_text("Source", row.data_source))
        right.html("".join(texts))
        if row.image_count > len(row.images):
            st.caption(f"First {len(row.images)} of {row.image_count} images")


def _actions(dataset: Dataset) -> None:
    if dataset.format:
        st.html(file_link(dataset_address(dataset.id), f"Download, {dataset.format}"))
    if not service.me().may_change(dataset.project):
        return
    with st.popover("Delete", icon=":material/delete:"):
        st.write(
            "Deletes the file permanently. Jobs that used it keep their checkpoints; active jobs prevent deletion."
        )
        if st.button("Delete dataset", type="primary"):
            try:
                service.client().delete_dataset(dataset.id)
            except CalibrlError as error:
                st.text(error.detail or str(error))
                return
            catalogue.clear_dataset_caches()
            st.query_params.clear()
            st.session_state["show"] = LIST
            st.rerun()


def _facts(dataset: Dataset) -> str:
    facts = [chip(f"project {dataset.project}", NEUTRAL)]
    if dataset.hub:
        facts += [chip(f"{dataset.hub.hub} on the hub", NEUTRAL), chip(f"split {dataset.hub.split}", NEUTRAL)]
    if dataset.format:
        facts += [chip(dataset.format, NEUTRAL), chip(f"{dataset.rows or 0:,} rows", NEUTRAL)]
        facts += [chip(file_size(dataset.bytes or 0), NEUTRAL), chip(f"experts: {_experts(dataset)}", EXPERT)]
    if dataset.row_format:
        facts.append(chip(dataset.row_format, NEUTRAL))
    if dataset.unused_columns:
        facts.append(chip(f"unused columns: {', '.join(dataset.unused_columns)}", NEUTRAL))
    facts.append(chip(f"added {moment(dataset.created_at)} by {dataset.user}", NEUTRAL))
    return f'<div style="display:flex;flex-wrap:wrap;gap:.35rem">{"".join(facts)}</div>'


def _detail(id: str) -> None:
    try:
        dataset = service.client().dataset(UUID(id))
    except ValueError:
        dataset = None
    except CalibrlError as error:
        if error.status != 404:
            raise
        dataset = None
    st.html('<a href="data" target="_self" style="color:inherit">← All datasets</a>')
    if dataset is None:
        states.empty("Dataset not found", "It was deleted, or you have no access to its project.")
        return
    title, action = st.columns([3, 2], vertical_alignment="center")
    title.html(f'<h1 style="overflow-wrap:anywhere;padding:0">{escape(dataset.name)}</h1>{_facts(dataset)}')
    with action, st.container(horizontal=True, horizontal_alignment="right"):
        _actions(dataset)
    st.caption("In a job's spec:")
    st.code(f"data: {{dataset: {dataset.id}}}", language=None, wrap_lines=True)
    if dataset.hub:
        states.empty(
            "Registered reference", "The rows are on the Hugging Face hub. The worker of a job downloads them."
        )
        return
    data_report.section(dataset)
    for row in catalogue.preview(dataset.id):
        _preview_row(row)
    if (dataset.rows or 0) > 8:
        st.caption("First rows, in the form that a job reads. Long texts are cut.")


def page() -> None:
    """Draw the page."""
    if "id" in st.query_params:
        _detail(st.query_params["id"])
        return
    st.title("Datasets", anchor=False)
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
