"""The datasets page: the list, one with its rows, uploads, and names on the hub."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from streamlit.testing.v1 import AppTest

from calibrl.schemas import Dataset, Me, Role
from tests.support.waiting import LIMIT_SECONDS

from .conftest import BEGAN, HOSTILE, Refusal, World
from .test_pages import NAVIGATION, finished, html

PNG = "data:image/png;base64,iVBORw0KGgo="


def data_page(view: str | None = None, **query: str) -> AppTest:
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    app.run()
    app.switch_page("app_pages/datasets.py")
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    if view:
        app.button_group(key="show").set_value(view).run()
    return finished(app)


def a_dataset(world: World, **changes: Any) -> Dataset:
    record = {
        "id": uuid4(),
        "project": "default",
        "user": "ann",
        "name": "figures",
        "format": "jsonl",
        "sha256": "0" * 64,
        "bytes": 12,
        "rows": 9,
        "columns": {},
        "has_columns": ["question", "answer"],
        "has_experts": True,
        "hub": None,
        "created_at": BEGAN,
    }
    made = Dataset.model_validate(record | changes)
    world.datasets.append(made)
    return made


def on_the_hub(world: World) -> Dataset:
    known = {"format": None, "sha256": None, "bytes": None, "rows": None, "has_columns": None, "has_experts": None}
    return a_dataset(world, name="geometry", hub={"hub": "hiyouga/geometry3k", "split": "test"}, **known)


def previewed(world: World, dataset: Dataset, **changes: Any) -> None:
    row = {
        "row": 1,
        "earlier": ["system: be brief"],
        "question": "What is it?",
        "answer": "7",
        "expert": "It is 7.",
        "data_source": None,
        "images": [PNG],
        "image_count": 1,
    } | changes
    world.answers[f"GET /v1/datasets/{dataset.id}/preview"] = lambda body: {"data": [row], "has_more": False}


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click()
    return finished(app.run())


def test_the_list_goes_on_after_the_last_one_shown(world: World) -> None:
    kept = [a_dataset(world, name=f"no-{number:02d}") for number in range(26)]
    app = data_page()
    next(button for button in app.button if button.label == "Older").click().run()
    finished(app)
    assert any(f"after={kept[24].id}" in path for path in world.requests)


def test_the_list_shows_files_and_names_on_the_hub(world: World) -> None:
    file, named = a_dataset(world), on_the_hub(world)
    text = html(data_page())
    assert f'href="data?id={file.id}"' in text and f'href="data?id={named.id}"' in text
    assert "12 bytes" in text and ">yes<" in text and ">hub<" in text


def test_an_empty_list_gives_the_next_step(world: World) -> None:
    assert "No datasets yet" in html(data_page())


def test_those_who_may_only_look_can_add_nothing(world: World) -> None:
    world.me = Me(user="eve", admin=False, scope="write", projects={"default": Role.VIEWER})
    dataset = a_dataset(world)
    previewed(world, dataset)
    assert data_page().button_group(key="show").options == ["List"]
    app = data_page(id=str(dataset.id))
    assert not any(button.label == "Delete dataset" for button in app.button)
    assert "What is it?" in html(app)


def test_rows_are_previewed_with_images_and_inert_texts(world: World) -> None:
    dataset = a_dataset(world, name="figures")
    previewed(world, dataset, question=HOSTILE, answer=HOSTILE, expert=HOSTILE, earlier=[HOSTILE], data_source=HOSTILE)
    text = html(data_page(id=str(dataset.id)))
    assert text.count("&lt;script&gt;") == 5 and "<script>" not in text
    assert f'src="{PNG}"' in text


@pytest.mark.parametrize(
    "address", ['x" onerror="alert(1)', "https://example.com/spy.png", "data:text/html;base64,AA=="]
)
def test_no_other_address_is_taken_for_an_image(world: World, address: str) -> None:
    dataset = a_dataset(world)
    previewed(world, dataset, images=[address])
    assert "<img" not in html(data_page(id=str(dataset.id)))


def test_a_name_on_the_hub_has_no_rows_here(world: World) -> None:
    text = html(data_page(id=str(on_the_hub(world).id)))
    assert "Registered reference" in text and "hiyouga/geometry3k on the hub" in text


@pytest.mark.parametrize("id", ["nonsense", str(UUID(int=7))])
def test_an_unknown_data_set_is_explained(world: World, id: str) -> None:
    assert "Dataset not found" in html(data_page(id=id))


def test_deleting_asks_first_and_says_why_not(world: World) -> None:
    dataset = a_dataset(world)
    previewed(world, dataset)
    world.answers[f"DELETE /v1/datasets/{dataset.id}"] = lambda body: Refusal(409, "job 123 uses it")
    app = press(data_page(id=str(dataset.id)), "Delete dataset")
    assert any(text.value == "job 123 uses it" for text in app.text)

    def delete(body: Any) -> Any:
        world.datasets.clear()
        return {}

    world.answers[f"DELETE /v1/datasets/{dataset.id}"] = delete
    assert "No datasets yet" in html(press(app, "Delete dataset"))


def test_an_upload_leads_to_its_preview(world: World) -> None:
    sent: list[bytes] = []

    def upload(body: bytes) -> Any:
        sent.append(body)
        made = a_dataset(world, name="mine")
        previewed(world, made)
        return made.model_dump(mode="json")

    world.answers["POST /v1/datasets/upload"] = upload
    app = data_page("Upload a file")
    app.file_uploader[0].set_value(("mine.jsonl", b'{"question": "x", "answer": "1"}', "application/jsonl")).run()
    app = press(app, "Validate and upload")
    assert sent == [b'{"question": "x", "answer": "1"}']
    assert "name=mine" in next(path for path in world.requests if "upload" in path)
    assert "What is it?" in html(app)


def test_a_refused_upload_is_reported_per_row(world: World) -> None:
    errors = ({"field": "rows.17", "message": f"has no answer {HOSTILE}"}, {"field": "file", "message": "is odd"})
    world.answers["POST /v1/datasets/upload"] = lambda body: Refusal(422, "2 rows can't be used.", errors)
    app = data_page("Upload a file")
    app.file_uploader[0].set_value(("mine.jsonl", b"{}", "application/jsonl")).run()
    text = html(press(app, "Validate and upload"))
    assert "<td>row 17</td>" in text and "has no answer" in text and "<td>file</td>" in text
    assert "<script>" not in text


def test_nothing_can_be_kept_without_a_file(world: World) -> None:
    app = data_page("Upload a file")
    assert next(button for button in app.button if button.label == "Validate and upload").disabled


def test_a_name_on_the_hub_is_noted(world: World) -> None:
    sent: list[Any] = []

    def register(body: Any) -> Any:
        sent.append(body)
        return on_the_hub(world).model_dump(mode="json")

    world.answers["POST /v1/datasets"] = register
    app = data_page("From the hub")
    app.text_input[0].set_value("hiyouga/geometry3k")
    app = press(app, "Register")
    assert sent[0] | {"revision": None} == {
        "name": "geometry3k",
        "hub": "hiyouga/geometry3k",
        "project": "default",
        "split": "train",
        "revision": None,
    }
    assert "Registered reference" in html(app)


def test_a_name_that_is_none_is_refused_here(world: World) -> None:
    app = data_page("From the hub")
    app.text_input[0].set_value("<b>nonsense</b>")
    text = html(press(app, "Register"))
    assert "<td>hub</td>" in text and "<b>nonsense" not in text
