from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from jobs.models import StepVisits
from jobs.postgres_text import storable

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
)


@given(anything)
def test_storable_text_encodes_and_stays_unchanged(value: object) -> None:
    once = storable(value)
    assert "\x00" not in str(once)
    str(once).encode()
    assert storable(once) == once


def test_only_unstorable_characters_change() -> None:
    assert storable({"a": ["x\x00y", "é", 1, None]}) == {"a": ["x\ufffdy", "é", 1, None]}
    assert storable("half \ud83d") == "half ?"


def test_ids_of_rows_are_stored_without_these_characters() -> None:
    stored = StepVisits.__table__.c.ids.type.bind_processor(make_url("postgresql+psycopg://").get_dialect()())
    assert stored is not None and stored(["1", "x\x00y"]) == ["1", "x\ufffdy"]
