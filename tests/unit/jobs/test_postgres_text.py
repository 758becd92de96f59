from hypothesis import given
from hypothesis import strategies as st

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
