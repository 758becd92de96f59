"""Panels of curves on a job's page: overview, exploration, expert mismatch, system."""

from typing import Any

import pytest

from calibrl.schemas import Job, JobStatus
from dashboard.palette import WRONG
from dashboard.reads import service
from tests.support.dashboard.pages import charts, finished, forget_reads, html, job_page, jobs_page, paths
from tests.support.dashboard.world import Refusal, World

pytestmark = pytest.mark.integration

EXPLORATION = {
    "entropy", "pass-at-k", "groups-solved", "active-groups", "rareness", "heat-rareness", "distinct-answers",
    "common-wrong", "solved-then-lost", "covariance", "reward-spread", "length", "truncated", "clip", "ratio", "kl",
}  # fmt: skip


def test_the_overview_draws_accuracy_reward_and_losses(world: World, measured: Job) -> None:
    app = job_page(measured.id)
    figures = charts(app)
    assert figures.keys() == {"accuracy", "reward", "losses", "grad-norm"}
    assert [trace["name"] for trace in figures["accuracy"]["data"] if trace.get("showlegend", True)] == [
        "val",
        "val (strict)",
        "train",
        "train (strict)",
    ]
    assert figures["reward"]["data"][0]["x"][-1] == 100
    assert "100 of 280 steps" in html(app)
    assert "left" in html(app)
    assert [tile.label for tile in app.metric] == [
        "Validation accuracy",
        "Train accuracy",
        "Entropy (nats/token)",
        "Gap to the expert (nats/token)",
    ]


@pytest.mark.parametrize(
    ("panel", "names"),
    [
        ("Exploration", EXPLORATION),
        ("System", {"phases", "speed", "memory", "step-seconds"}),
        (
            "Expert mismatch",
            {
                "gap",
                "damped",
                "probe-gap",
                "probe-nll",
                "expert-gradients",
                "expert-agreement",
                "heat-expert-gap",
                "quadrants",
                "expert-nll",
                "expert-losses",
            },
        ),
    ],
)
def test_a_panel_draws_its_charts(world: World, measured: Job, panel: str, names: set[str]) -> None:
    figures = charts(job_page(measured.id, panel))
    assert names <= figures.keys()
    assert all(figure["data"] for figure in figures.values())


def test_no_sentence_claims_an_uncertain_fact(world: World, measured: Job) -> None:
    text = html(job_page(measured.id, "Expert mismatch")) + html(job_page(measured.id, "Exploration"))
    assert "Two bands" not in text and "after its updates" not in text
    assert "With one mini-batch per step it stays at 1" in text


def test_lines_of_similar_colours_have_different_dashes(world: World, measured: Job) -> None:
    figures = charts(job_page(measured.id, "Exploration"))
    for name in ("rareness", "clip", "ratio"):
        lines = [trace["line"] for trace in figures[name]["data"] if trace.get("showlegend", True)]
        assert len({line["dash"] for line in lines}) == 3
    assert WRONG not in [trace["line"]["color"] for name in ("clip", "ratio") for trace in figures[name]["data"]]


def test_groups_with_an_advantage_are_not_called_solved(world: World, measured: Job) -> None:
    """An unsolved group whose completions differ in their format has one as well."""
    traces = charts(job_page(measured.id, "Exploration"))["active-groups"]["data"]
    names = [trace["name"] for trace in traces if trace.get("showlegend", True)]
    assert names == ["non-zero advantage"]


def test_only_the_panel_on_show_asks_for_data(world: World, measured: Job) -> None:
    world.keep_sample(measured, 10, "text")
    job_page(measured.id, "Log")
    asked = paths(world.requests)
    assert "log" in asked
    assert not asked & {"histograms", "samples", "checkpoints", "events"}
    metrics = [request for request in world.requests if "/metrics" in request]
    assert all("names=perf%2Fstep_seconds&" in request for request in metrics)  # the header's time left


def test_calibrated_quadrants_say_how_hard_they_are_pushed(world: World, measured: Job) -> None:
    text = html(job_page(measured.id, "Expert mismatch"))
    assert "Pushed down at full strength." in text
    assert "Pushed up at 0.5 × full strength." in text


def test_supervised_fine_tuning_shows_its_own_charts(world: World) -> None:
    job = world.add(spec={"algorithm": {"type": "sft"}})
    world.measure(job, range(1, 31), {"expert/nll": 2.0, "loss/grad_norm": 1.0})
    figures = charts(job_page(job.id))
    assert figures.keys() == {"nll", "grad-norm"}  # the others have nothing to draw
    (panels,) = [group for group in job_page(job.id).button_group if group.key == "panel"]
    assert panels.options[:3] == ["Overview", "Metrics", "Health"]


def test_the_system_panel_shows_the_gpus_that_the_job_holds(world: World, measured: Job) -> None:
    machine = world.machine(gpus=[93.0, 40.0])
    world.hold(measured, machine, gpus=1)
    text = html(job_page(measured.id, "System"))
    assert "Runs on machine-1" in text
    assert "93 %" in text and "40 %" not in text
    assert text.count("20.0 of 80 GiB") == 1


def test_every_machine_of_a_job_is_shown(world: World, measured: Job) -> None:
    for name in ("machine-1", "machine-2"):
        world.hold(measured, world.machine(name), gpus=1)
    text = html(job_page(measured.id, "System"))
    assert "on machine-1, machine-2" in text
    assert "Runs on machine-1" in text and "Runs on machine-2" in text


def test_weights_are_shown_by_outcome(world: World, measured: Job) -> None:
    app = job_page(measured.id, "Exploration")
    of_all = charts(app)["heat-rareness"]["data"]
    world.requests.clear()
    app.button_group(key="heat-rareness-of").set_value("wrong").run()
    assert any("name=rareness%2Fwrong" in request for request in world.requests)
    assert charts(finished(app))["heat-rareness"]["data"] != of_all
    app = job_page(measured.id, "Expert mismatch")
    app.button_group(key="heat-expert-gap-of").set_value("correct").run()
    assert any("name=expert%2Fgap_correct" in request for request in world.requests)


def test_values_that_are_not_finite_are_shown_with_their_step(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 101), {"exploration/entropy": 0.5, "reward/mean": 1.0})
    world.measure(job, range(101, 111), {"exploration/entropy": "NaN", "reward/mean": "Infinity"})
    app = job_page(job.id)
    (tile,) = [tile for tile in app.metric if tile.label.startswith("Entropy")]
    assert (tile.value, tile.delta) == ("0.500", "NaN or infinite since step 101")
    for chart in (charts(app)["reward"], charts(job_page(job.id, "Exploration"))["entropy"]):
        assert chart["data"][-1]["x"] == [*range(101, 111)]
        assert chart["data"][-1]["name"] == "NaN or infinite"


def test_one_huge_value_spoils_neither_the_tile_nor_the_axis(world: World) -> None:
    job = world.add()
    for step in range(1, 101):
        value = 1e30 if step == 30 else 0.5 + step / 1000
        world.measure(job, range(step, step + 1), {"exploration/entropy": value})
    assert [tile.value for tile in job_page(job.id).metric if tile.label.startswith("Entropy")] == ["0.600"]
    entropy = charts(job_page(job.id, "Exploration"))["entropy"]
    assert entropy["layout"]["yaxis"]["range"][1] < 1
    assert entropy["data"][1]["y"][-1] == pytest.approx(0.5965)  # the mean of the last eight


def test_list_and_tile_have_the_same_current_value(world: World, measured: Job) -> None:
    names = service.client().metric_names(measured.id)
    (entropy,) = [row.last for row in names if row.name == "exploration/entropy"]
    assert f" {entropy:.2f}</td>" in html(jobs_page())
    assert f"{entropy:.3f}" in [tile.value for tile in job_page(measured.id).metric]


def test_cards_without_data_take_no_place_once_a_job_has_ended(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 5), {"exploration/entropy": 0.5})
    assert "Not reported by this run" not in " ".join(each.value for each in job_page(job.id, "Exploration").caption)
    world.change(job, status=JobStatus.SUCCEEDED)
    forget_reads()
    app = job_page(job.id, "Exploration")
    assert {name for name in charts(app) if not name.startswith("heat")} == {"entropy"}
    (absent,) = (each.value for each in app.caption if each.value.startswith("Not reported by this run: "))
    assert "Policy entropy" not in absent and "Truncation rate" in absent


def test_memory_is_drawn_as_reported(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 31), {"perf/memory_bytes": 2.0**30})
    world.measure(job, range(31, 61), {"perf/memory_bytes": 2.0**31})
    (memory,) = charts(job_page(job.id, "System"))["memory"]["data"]
    assert memory["y"] == [1.0] * 30 + [2.0] * 30


def test_every_reported_metric_is_found_and_drawn(world: World) -> None:
    job = world.add()
    values = {"reward/math": 0.5, "reward/format": 0.9, "validation/accuracy_low": 0.4, "sampled/length": 7.0}
    world.measure(job, range(1, 31), {**values, "loss/kl": 0.01})
    app = job_page(job.id, "Metrics")
    drawn = {figure["data"][-1]["name"]: figure["data"][-1]["y"][-1] for figure in charts(app).values()}
    assert drawn == {**values, "loss/kl": 0.01}
    app.text_input(key="metric").set_value("VALIDATION *_low").run()
    assert list(charts(finished(app))) == ["metric-validation-accuracy_low"]
    assert "1 of 5 metrics" in [caption.value for caption in app.caption]
    assert list(charts(job_page(job.id, "Metrics", metric="reward"))) == ["metric-reward-format", "metric-reward-math"]


def test_the_reader_chooses_smoothing_and_axes(world: World) -> None:
    """A step per second; 10 tokens per second for 2 s are 20 tokens per step."""
    job = world.add()
    world.run(job, (0, None))
    for step in range(1, 5):
        values = {"reward/mean": float(step == 4), "perf/tokens_per_second": 10.0, "perf/step_seconds": 2.0}
        world.measure(job, range(step, step + 1), values)

    def shown(**query: str) -> tuple[list[float], list[float], dict[str, Any]]:
        figure = charts(job_page(job.id, "Metrics", metric="reward/mean", **query))["metric-reward-mean"]
        return figure["data"][-1]["x"], figure["data"][-1]["y"], figure["layout"]

    assert shown()[1] == [0, 0, 0, 0.25]
    assert shown(smoothing="None")[1] == [0, 0, 0, 1]
    places, _, layout = shown(axis="tokens", log="true")
    assert places == [20, 40, 60, 80] and layout["yaxis"]["type"] == "log"
    assert layout["xaxis"]["title"]["text"] == "completion tokens so far"
    assert shown(axis="time")[0] == [1, 2, 3, 4]


def test_metrics_are_found_by_a_regular_expression_and_pinned(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 5), {"kl/approx": 0.1, "loss/total": 0.2, "reward/mean": 1.0})
    app = job_page(job.id, "Metrics", metric="/^(kl|loss)/")
    assert list(charts(app)) == ["metric-kl-approx", "metric-loss-total"]
    app.multiselect(key="pinned").set_value(["reward/mean"]).run()
    assert list(charts(finished(app))) == ["metric-reward-mean", "metric-kl-approx", "metric-loss-total"]
    app.text_input(key="metric").set_value("/(/").run()
    assert "Invalid regular expression" in finished(app).error[0].value


def test_the_tile_has_the_best_value_and_its_step(world: World) -> None:
    job = world.add()
    for step, value in ((1, 0.2), (2, 0.6), (3, 0.5)):
        world.measure(job, range(step, step + 1), {"validation/accuracy": value})
    (tile,) = (each for each in job_page(job.id).metric if each.label == "Validation accuracy")
    assert tile.proto.delta_description == "best 60.0% at step 2"


@pytest.mark.parametrize("axis", ["time", "tokens"])
def test_tiles_name_steps_on_every_x_axis(world: World, axis: str) -> None:
    """A step per second, from second 1 after the start; the job reports no tokens."""
    job = world.add()
    world.run(job, (0, None))
    for step, value in ((10, 0.2), (20, 0.6), (30, 0.5)):
        entropy: float | str = "NaN" if step == 30 else 0.7
        world.measure(job, range(step, step + 1), {"validation/accuracy": value, "exploration/entropy": entropy})
    tiles = {tile.label: tile for tile in job_page(job.id, axis=axis).metric}
    assert tiles["Validation accuracy"].value == "50.0%"
    assert tiles["Validation accuracy"].proto.delta_description == "best 60.0% at step 20"
    assert tiles["Entropy (nats/token)"].delta == "NaN or infinite since step 30"


def test_the_axis_of_time_outlives_a_failing_service(world: World, measured: Job) -> None:
    world.run(measured, (0, None))
    before = charts(job_page(measured.id, axis="time"))["reward"]["data"]
    world.refusals[f"GET /v1/jobs/{measured.id}/attempts"] = Refusal(503, "busy")
    assert charts(job_page(measured.id, axis="time"))["reward"]["data"] == before
    forget_reads()
    app = job_page(measured.id, axis="time")
    assert "Data from" in app.warning[0].value and len(app.metric) == 4


def test_learning_rate_and_epoch_are_drawn_as_reported(world: World) -> None:
    job = world.add()
    for step, rate in ((1, 1e-4), (2, 5e-5)):
        world.measure(job, range(step, step + 1), {"schedule/learning_rate": rate, "schedule/epoch": step / 4})
    drawn = charts(job_page(job.id))
    assert drawn["learning-rate"]["data"][0]["y"] == [1e-4, 5e-5]
    assert drawn["epoch"]["data"][0]["y"] == [0.25, 0.5]


def test_the_hardware_of_each_process_has_a_line(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 3), {f"perf/gpu_memory_bytes/{rank}": rank * 2.0**30 for rank in (1, 2, 10)})
    world.measure(job, range(1, 3), {"perf/cpu_cores/0": 0.5})
    drawn = charts(job_page(job.id, "System"))
    traces = [trace for trace in drawn["gpu-memory-bytes"]["data"] if trace.get("showlegend", True)]
    lines = {trace["name"]: trace["y"][-1] for trace in traces}
    assert list(lines.items()) == [("process 1", 1.0), ("process 2", 2.0), ("process 10", 10.0)]
    assert [trace["y"][-1] for trace in drawn["cpu-cores"]["data"]][-1] == 0.5
    assert "gpu-utilisation" not in drawn


def test_the_hardware_of_many_processes_fits_one_call(world: World) -> None:
    """20 processes with 4 readings are 80 metrics; one call returns at most 64."""
    readings = ("gpu_utilisation", "gpu_memory_bytes", "cpu_cores", "host_memory_bytes")
    job = world.add()
    values = {f"perf/{reading}/{rank}": 1.0 for reading in readings for rank in range(20)}
    world.measure(job, range(1, 2), values | {"perf/memory_bytes": 2.0**30})
    app = job_page(job.id, "System")
    drawn = charts(app)
    names = {trace["name"] for trace in drawn["cpu-cores"]["data"] if trace.get("showlegend", True)}
    assert names == {f"process {rank}" for rank in range(12)}
    assert drawn["memory"]["data"][0]["y"] == [1.0]
    assert "first 12 of 20 processes" in " ".join(caption.value for caption in app.caption)
