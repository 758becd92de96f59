"""The datasets page: the list, one with its rows, uploads, and names on the hub."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import JobStatus, Role
from tests.support.dashboard.pages import html, open_page, press
from tests.support.dashboard.records import PREVIEW
from tests.support.dashboard.world import HOSTILE, World
from tests.support.word_tokenizer import save_word_tokenizer

pytestmark = pytest.mark.integration
ROW = {"question": "What is it?", "answer": "7"}


def data_page(view: str | None = None, **query: str) -> AppTest:
    return open_page("datasets", show=view, **query)


def upload(*rows: dict[str, Any]) -> AppTest:
    """Upload a JSONL file with these rows in the form."""
    app = data_page("Upload a file")
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    app.file_uploader[0].set_value(("mine.jsonl", content, "application/jsonl")).run()
    return press(app, "Validate and upload")


def test_the_next_page_starts_after_the_last_item_shown(world: World) -> None:
    kept = [world.add_dataset(name=f"no-{number:02d}") for number in range(26)]
    text = html(press(data_page(), "Older"))
    assert "no-00" in text and "no-01" not in text
    assert any(f"after={kept[1].id}" in path for path in world.requests)


def test_the_list_shows_files_and_names_on_the_hub(world: World) -> None:
    file, named = world.add_dataset(), world.add_hub_dataset()
    text = html(data_page())
    assert f'href="data?id={file.id}"' in text and f'href="data?id={named.id}"' in text
    assert "12 bytes" in text and ">yes<" in text and ">hub<" in text


def test_an_empty_list_gives_the_next_step(world: World) -> None:
    assert "No datasets yet" in html(data_page())


def test_viewers_cannot_add_datasets(world: World) -> None:
    world.sign_in("eve", {"default": Role.VIEWER})
    dataset = world.add_dataset()
    assert data_page().button_group(key="show").options == ["List"]
    app = data_page(id=str(dataset.id))
    assert not any(button.label == "Delete dataset" for button in app.button)
    assert "What is it?" in html(app)


def test_rows_are_previewed_with_images_and_inert_texts(world: World) -> None:
    texts = dict.fromkeys(("question", "answer", "expert", "data_source"), HOSTILE)
    dataset = world.add_dataset(preview=texts | {"earlier": [HOSTILE]})
    text = html(data_page(id=str(dataset.id)))
    assert text.count("&lt;script&gt;") == 5 and "<script>" not in text
    assert f'src="{PREVIEW["images"][0]}"' in text


def test_a_report_is_made_when_it_is_asked_for(world: World) -> None:
    rows = [ROW, ROW, {**ROW, "question": HOSTILE, "expert": "<answer>8</answer>"}]
    dataset = world.add_dataset("".join(json.dumps(row) + "\n" for row in rows).encode(), format="jsonl")
    app = data_page(id=str(dataset.id))
    assert not world.asked(f"POST /v1/datasets/{dataset.id}/report")
    text = html(press(app, "Check the rows"))
    assert "1 of 3 rows repeat an earlier row" in text and "1 of 1 experts fail the rewards" in text
    assert "number: 3 of 3" in text and "<script>" not in text


def test_a_report_can_count_tokens_and_read_another_format(world: World, tmp_path: Path) -> None:
    dataset = world.add_dataset((json.dumps({**ROW, "expert": "a b a"}) + "\n").encode(), format="jsonl")
    app = data_page(id=str(dataset.id))
    assert app.number_input(key="report-max_completion_tokens").disabled
    app.text_input(key="report-model").set_value(str(save_word_tokenizer(tmp_path / "words"))).run()
    app.number_input(key="report-max_completion_tokens").set_value(3).run()
    assert "1 of 1 experts have more than 3 tokens and are cut" in html(press(app, "Check the rows"))
    app.selectbox(key="report-format").set_value("sharegpt").run()
    assert "which format: sharegpt needs" in html(press(app, "Check the rows"))


@pytest.mark.parametrize(
    "address", ['x" onerror="alert(1)', "https://example.com/spy.png", "data:text/html;base64,AA=="]
)
def test_other_urls_are_not_shown_as_images(world: World, address: str) -> None:
    dataset = world.add_dataset(preview={"images": [address]})
    assert "<img" not in html(data_page(id=str(dataset.id)))


def test_a_hub_dataset_has_no_preview(world: World) -> None:
    text = html(data_page(id=str(world.add_hub_dataset().id)))
    assert "Registered reference" in text and "hiyouga/geometry3k on the hub" in text


@pytest.mark.parametrize("id", ["nonsense", str(UUID(int=7))])
def test_an_unknown_dataset_is_explained(world: World, id: str) -> None:
    assert "Dataset not found" in html(data_page(id=id))


def test_deleting_asks_first_and_says_why_not(world: World) -> None:
    dataset = world.add_dataset(b"rows")
    user = world.add(spec={"data": {"dataset": str(dataset.id)}}, datasets=[dataset.id])
    app = press(data_page(id=str(dataset.id)), "Delete dataset")
    assert any(str(user.id) in text.value for text in app.text)
    world.change(user, status=JobStatus.SUCCEEDED)
    assert "No datasets yet" in html(press(app, "Delete dataset"))


def test_an_upload_leads_to_its_preview(world: World) -> None:
    app = upload(ROW)
    assert world.asked("POST /v1/datasets/upload") == [ROW]
    assert "name=mine" in next(path for path in world.requests if "upload" in path)
    assert "What is it?" in html(app)


def test_a_refused_upload_is_reported_per_row(world: World) -> None:
    text = html(upload(ROW, {"question": HOSTILE}))
    assert "<td>row 2</td>" in text
    assert "<script>" not in text


def test_nothing_can_be_kept_without_a_file(world: World) -> None:
    app = data_page("Upload a file")
    assert next(button for button in app.button if button.label == "Validate and upload").disabled


def test_a_hub_dataset_is_registered_by_name(world: World) -> None:
    app = data_page("From the hub")
    app.text_input[0].set_value("hiyouga/geometry3k")
    app = press(app, "Register")
    (sent,) = world.asked("POST /v1/datasets")
    assert sent | {"revision": None} == {
        "name": "geometry3k",
        "hub": "hiyouga/geometry3k",
        "project": "default",
        "split": "train",
        "revision": None,
    }
    assert "Registered reference" in html(app)


def test_an_invalid_hub_name_is_refused_with_its_field(world: World) -> None:
    app = data_page("From the hub")
    app.text_input[0].set_value("<b>nonsense</b>")
    text = html(press(app, "Register"))
    assert "<td>hub</td>" in text and "<b>nonsense" not in text
