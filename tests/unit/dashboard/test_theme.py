"""The theme is kept as Streamlit keeps it."""

import re
from pathlib import Path

import streamlit

from dashboard import theme
from tests.support.dashboard.pages import NAVIGATION


def test_a_theme_is_written_where_this_streamlit_reads_it() -> None:
    scripts = Path(streamlit.__file__).with_name("static").glob("static/js/*.js")
    of = re.compile(r"=(\d+),\w+=`stActiveTheme-\$\{window\.location\.pathname\}`")
    (version,) = {found[1] for script in scripts if (found := of.search(script.read_text()))}
    assert f"pathname}}-v{version}`" in Path(theme.__file__).with_suffix(".js").read_text()


def test_a_theme_is_kept_for_every_page() -> None:
    assert set(theme.PATHS) == {"./", *re.findall(r'url_path="(\w+)"', NAVIGATION.read_text())}
