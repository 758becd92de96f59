"""The benchmark of the dashboard: a viewer without a browser asks for its ticks as a browser does."""

import time

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from bench.dashboard.run import METRICS, names
from bench.dashboard.viewers import Viewer


def test_a_viewer_requests_each_fragment_on_time_and_waits_for_answers() -> None:
    viewer = Viewer("http://127.0.0.1:1", "job", "id=1", "a-key")
    message = ForwardMsg()
    message.auto_rerun.interval, message.auto_rerun.fragment_id = 0.0, "reward"
    viewer._take(message)
    assert viewer._to_ask() == ["reward"]
    assert viewer._to_ask() == []  # no second question before the first one's answer
    done = ForwardMsg()
    done.script_finished = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
    viewer._take(done)
    [(at, seconds)] = viewer.ticks
    assert 0 <= seconds < 60 and at <= time.monotonic()
    assert viewer._to_ask() == ["reward"]


def test_a_viewer_names_page_script_and_fragment() -> None:
    viewer = Viewer("http://127.0.0.1:1", "job", "id=1", "a-key")
    begun = ForwardMsg()
    begun.new_session.page_script_hash = "script"
    viewer._take(begun)
    asked = BackMsg.FromString(viewer._request("reward")).rerun_script
    assert (asked.page_name, asked.query_string, asked.page_script_hash) == ("job", "id=1", "script")
    assert (asked.fragment_id, asked.is_auto_rerun) == ("reward", True)
    assert not BackMsg.FromString(viewer._request()).rerun_script.is_auto_rerun


def test_the_long_run_reports_metrics_that_trainers_do() -> None:
    assert len(set(names())) == METRICS
    assert {"reward/mean", "exploration/entropy", "rareness/mean"} <= set(names())
