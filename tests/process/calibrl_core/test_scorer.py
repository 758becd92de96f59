"""Scores, and the worker processes behind them: hostile answers, verifiers that die, signals, a killed trainer."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import TrainConfig
from calibrl_core.verifiers import ExactReward, FormatReward, MathReward, PluginReward, pool
from calibrl_core.verifiers.base import follows_format
from calibrl_core.verifiers.plugin import PluginError, plugin_versions
from calibrl_core.verifiers.pool import WorkerPool
from calibrl_core.verifiers.scorer import Scorer
from tests.support.waiting import LIMIT_SECONDS

VERIFIERS = """
    import os, pathlib, re, signal, stat, subprocess, sys, time

    def length(completion, truth): return min(len(completion) / 10, 1.0)
    def loads_torch(completion, truth): return float("torch" in sys.modules)
    def exits(completion, truth): os._exit(3) if "exit" in completion else None; return 1.0
    def hangs(completion, truth): time.sleep(3600)
    def backtracks(completion, truth): return float(bool(re.match(r"exit(a+)+$", completion)))
    def is_starved(completion, truth):
        os.sched_setaffinity(0, {int(truth)}); os.nice(10)
        end = time.process_time() + float(completion)
        while time.process_time() < end: pass
        return 1.0
    def segfaults(completion, truth): import ctypes; ctypes.string_at(0)
    def fills_memory(completion, truth): return float(len([bytearray(2**20) for _ in range(2**20)]))
    def raises(completion, truth): raise LookupError(completion)
    def says_nan(completion, truth): return float("nan")
    def prints(completion, truth): print("{}"); sys.stdin.read(); return 1.0
    def counts(completion, truth):
        with pathlib.Path(truth).open("a") as file: file.write(completion)
        return 1.0
    def signals_its_group(completion, truth):
        os.killpg(0, signal.SIGTERM); os.killpg(0, signal.SIGINT)
        return 1.0
    def signals_the_trainers_group(completion, truth):
        keeper = pathlib.Path(f"/proc/{os.getppid()}/stat").read_text()
        os.killpg(int(keeper.rpartition(")")[2].split()[1]), signal.SIGTERM)
        os.killpg(int(keeper.rpartition(")")[2].split()[1]), signal.SIGINT)
        return 1.0
    def forks(completion, truth):
        child = os.fork()
        if child: os.waitpid(child, 0)
        return float(completion) if child else 1.0 - float(completion)
    def sends(completion, truth):
        if "send" in completion:
            for fd in range(3, 64):
                try: os.write(fd, eval(truth)) if stat.S_ISSOCK(os.fstat(fd).st_mode) else None
                except OSError: pass
        return 1.0
    def starts_a_child(completion, truth):
        child = subprocess.Popen(["sleep", "3600"])
        with pathlib.Path(truth).open("w") as file: file.write(f"{child.pid}\\n")
        while stat.S_ISFIFO(os.stat(truth).st_mode): pass
        return 1.0
    not_callable = 7
"""
NAMES = [line.split("(")[0].split()[1] for line in VERIFIERS.splitlines() if line.strip().startswith("def ")]


def install(
    folder: Path,
    name: str = "org-verifiers",
    version: str = "1.2",
    code: Any = VERIFIERS,
    names: Any = (*NAMES, "not_callable"),
) -> None:
    """A distribution as pip would leave it."""
    module = name.replace("-", "_")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = "".join(f"{one} = {module}:{one}\n" for one in names)
    (info / "entry_points.txt").write_text(f"[calibrl.verifiers]\n{points}missing = no_such_module:verify\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def plugin(name: str, **settings: Any) -> Any:
    return PluginReward(name=name, **{"time_limit_seconds": 60.0, **settings})


def one(scorer: Scorer, completion: str, truth: str = "") -> Any:
    (score,) = scorer.score_all([completion], [truth])
    return score


@pytest.fixture(scope="module")
def scorer() -> Iterator[Any]:
    with Scorer([MathReward(), FormatReward(weight=0.1)], workers=1) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("completion", "truth", "passed", "strict"),
    [
        ("<think>3+4=7.</think><answer>7</answer>", "7", True, True),
        ("<answer>7</answer>", "7", True, False),
        ("<think>a</think><answer>8</answer>", "7", False, False),
        ("<think>a</think><answer>07</answer>", "7", True, True),
        ("<think>a</think><answer>14/2</answer>", "7", True, True),
        ("<think>a</think><answer>\\sqrt{49}</answer>", "7", True, True),
        ("<think>a</think><answer>\\frac{1}{2}</answer>", "0.5", True, True),
        ("<think>a</think><answer>6</answer><answer>7</answer>", "7", True, False),
        ("7", "7", False, False),
        ("<answer></answer>", "7", False, False),
        ("<answer>" + "9**" * 400 + "9</answer>", "7", False, False),
        ("\ud800<answer>\\sqrt{49} \ud800</answer>", "7", False, False),  # no character at all
    ],
)
def test_scores(scorer: Scorer, completion: str, truth: str, passed: bool, strict: bool) -> None:
    found = one(scorer, completion, truth)
    assert (found.passed, found.strict, found.failure) == (passed, strict, None)
    assert isinstance(found.passed, bool)
    assert found.reward == pytest.approx(passed + 0.1 * follows_format(completion))
    assert found.by_verifier == {"math": float(passed), "format": float(follows_format(completion))}


def test_a_batch_keeps_its_order(scorer: Scorer) -> None:
    completions = [f"<answer>\\sqrt{{{n}^2}}</answer>" for n in range(20)]
    scores = scorer.score_all(completions, [str(n if n % 3 else 99) for n in range(20)])
    assert [score.passed for score in scores] == [n % 3 > 0 for n in range(20)]
    assert scorer.score_all([], []) == []


def test_answers_compared_as_text_start_no_process() -> None:
    with Scorer([MathReward(), ExactReward(), FormatReward()]) as scorer:
        answers = ["7", "07", "8", "7 cm", "50%", "\\frac{1}{2}", "yes", ""]
        scorer.score_all([f"<answer>{text}</answer>" for text in answers], ["7"] * len(answers))
        assert scorer._pool._workers == []


HOSTILE = (
    "9^{9^{9^9}}",
    "(((9!)!)!)!",
    "(x+y+z+w)^{500}",
    "{" * 400,
    "(" * 240 + "1" + ")" * 240,
    "\\frac{1+" * 60 + "1" + "}{2}" * 60,
)


def test_hostile_answers_cost_their_own_verdicts_only() -> None:
    """Some of these are judged in time, some are not, as the machine is: none passes, hangs, or spoils the next."""
    with Scorer([MathReward(time_limit_seconds=1.0)], workers=2) as scorer:
        answers = [one for hostile in HOSTILE for one in (hostile, f"\\sqrt{{{len(hostile)}^2}}")]
        truths = [truth for hostile in HOSTILE for truth in ("8x", str(len(hostile)))]
        scores = scorer.score_all([f"<answer>{answer}</answer>" for answer in answers], truths)
    assert [score.passed for score in scores] == [False, True] * len(HOSTILE)
    assert [score.failure for score in scores[1::2]] == [None] * len(HOSTILE)


def test_overruns_are_counted() -> None:
    with Scorer([MathReward(time_limit_seconds=0.5)], workers=1) as scorer:
        assert one(scorer, "<answer>(x+y+z+w)^{500}</answer>", "8x").failure == "math: no verdict within 0.5 seconds"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "limit", "failure"),
    [
        ("exits", 60, "plugin-exits: its process died (exit status 3)"),
        ("segfaults", 60, "plugin-segfaults: its process died (exit status -11)"),
        ("hangs", 0.2, "plugin-hangs: no verdict within 0.2 seconds"),
        ("backtracks", 0.2, "plugin-backtracks: no verdict within 0.2 seconds"),
        ("fills_memory", 60, "plugin-fills_memory: MemoryError: "),
        ("raises", 60, "plugin-raises: LookupError: exit" + "a" * 100 + "!"),
        ("says_nan", 60, "plugin-says_nan: ValueError: returned nan; it must return a number from 0 to 1"),
    ],
)
def test_a_verifier_that_fails_scores_0_and_says_why(name: str, limit: float, failure: Any) -> None:
    with Scorer([plugin(name, time_limit_seconds=limit), plugin("length", weight=2.0)], workers=1) as scorer:
        found = one(scorer, "exit" + "a" * 100 + "!")
    assert found.failure == failure
    assert found.by_verifier == {f"plugin-{name}": 0.0, "plugin-length": 1.0}
    assert (found.reward, found.passed) == (2.0, False)


@pytest.mark.usefixtures("installed")
def test_a_worker_that_dies_takes_no_other_verdict_with_it() -> None:
    with Scorer([plugin("exits")], workers=2) as scorer:
        scores = scorer.score_all([f"{n} exit" if n % 3 == 0 else f"{n}" for n in range(9)], [""] * 9)
    assert [score.passed for score in scores] == [n % 3 > 0 for n in range(9)]
    assert sum(score.failure is not None for score in scores) == 3


@pytest.mark.usefixtures("installed")
def test_a_child_that_a_verifier_forks_gives_no_verdict() -> None:
    wanted = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    with Scorer([plugin("forks")], workers=1) as scorer:
        scores = scorer.score_all([str(value) for value in wanted], [""] * 8)
    assert [score.reward for score in scores] == wanted
    assert [score.failure for score in scores] == [None] * 8


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "sent",
    [
        b"no JSON\n",
        b"[1, 0.5, null]\n",  # the answer to the question before
        b"[2, 0.5, null]\n[2, 0.5, null]\n",
        b"[2, 7, null]\n",
        b"[2, NaN, null]\n",
        b"[2, 0.5, 3]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * (pool.LONGEST_ANSWER + 1),  # no line at all
    ],
)
def test_a_wrong_line_costs_its_question_and_its_worker_only(sent: Any) -> None:
    with Scorer([plugin("sends")], workers=1) as scorer:
        scores = scorer.score_all(["a", "send", "b"], [repr(sent)] * 3)
    assert [score.passed for score in scores] == [True, False, True]
    why = "plugin-sends: its worker process sent a line that does not answer this request"
    assert [score.failure for score in scores] == [None, why, None]


@pytest.mark.usefixtures("installed")
def test_the_children_of_a_verifier_end_with_its_worker(tmp_path: Path) -> None:
    with Scorer([plugin("starts_a_child")], workers=1) as scorer:
        assert one(scorer, "", str(tmp_path / "pids")).passed
        child = os.pidfd_open(int((tmp_path / "pids").read_text()))
    assert_ends(child)


@pytest.mark.usefixtures("installed")
def test_a_batch_that_fails_throughout_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MIN_LOSSES", 1)
    with Scorer([plugin("exits")], workers=1) as scorer:
        failures = [score.failure for score in scorer.score_all([f"exit {n}" for n in range(9)], [""] * 9)]
        assert failures[1] == "plugin-exits: its process died (exit status 3)"
        assert set(failures[2:]) == {"not judged: 2 others had failed before"}
        assert one(scorer, "fine").passed


@pytest.mark.usefixtures("installed")
def test_workers_do_not_import_torch_and_can_print() -> None:
    with Scorer([plugin("loads_torch"), plugin("prints")], workers=1) as scorer:
        assert one(scorer, "").by_verifier == {"plugin-loads_torch": 0.0, "plugin-prints": 1.0}


@pytest.mark.usefixtures("installed")
def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    with Scorer([plugin("counts")], workers=1) as scorer:
        scores = scorer.score_all(["a", "b", "a", "a"], [str(tmp_path / "asked")] * 4)
    assert all(score.passed for score in scores)
    assert (tmp_path / "asked").read_text() == "ab"


@pytest.mark.usefixtures("installed")
def test_time_without_a_cpu_does_not_count_against_a_verifier() -> None:
    """The verifier's 0.2 s take over a second beside a process with ten times its share of the same CPU."""
    cpu = min(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as busy:
        os.sched_setaffinity(busy.pid, {cpu})
        with Scorer([plugin("is_starved", time_limit_seconds=0.6)], workers=1) as scorer:
            found = one(scorer, "0.2", str(cpu))
        busy.kill()
    assert (found.passed, found.failure) == (True, None)


@pytest.mark.usefixtures("installed")
def test_a_worker_killed_between_two_batches_costs_nothing() -> None:
    with Scorer([plugin("length")], workers=1) as scorer:
        one(scorer, "a")
        (worker,) = scorer._pool._workers
        os.kill(worker._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker._process.pid, os.WEXITED | os.WNOWAIT)
        assert one(scorer, "a" * 10).passed
        scorer.close()
        assert one(scorer, "a" * 10).passed  # and after closing, too


def test_processes_that_never_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with WorkerPool([MathReward()], 1) as workers, pytest.raises(RuntimeError, match="end before they can judge"):
        workers.judge([pool.VerdictRequest(0, "x", "y")])


TRAINER = """
    import os, signal, sys
    from calibrl_core.verifiers.scorer import Scorer
    from calibrl_core.verifiers import PluginReward

    received = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: received.append(number))
    with Scorer([PluginReward(name=sys.argv[1], time_limit_seconds=60)], workers=2) as scorer:
        scores = scorer.score_all(["a", "b"], sys.argv[2:] * 2)
    print([score.passed for score in scores], sorted(set(received)))
"""


def trainer(site: Path, *arguments: Any) -> Any:
    """Start a trainer in a new session, as the supervisor does."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TRAINER), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_verifier_that_signals_its_group_does_not_reach_the_trainer(installed: Path) -> None:
    with trainer(installed, "signals_its_group", "") as process:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert output.strip() == "[True, True] []"


def test_a_signal_to_the_trainers_group_lets_the_step_finish(installed: Path) -> None:
    with trainer(installed, "signals_the_trainers_group", "") as process:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert output.strip() == f"[True, True] [{signal.SIGINT:d}, {signal.SIGTERM:d}]"


def assert_ends(process: Any) -> None:
    """`process`: a pidfd."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    assert poll.poll(30_000), "a process outlived what started it"
    os.close(process)


def test_a_killed_trainer_leaves_no_worker(installed: Path, tmp_path: Path) -> None:
    """The workers are in the midst of a verdict, where only the kernel can end them."""
    (installed / "hang_and_tell.py").write_text(
        "import os, pathlib, time\n"
        "def verify(completion, truth):\n"
        "    os.write(os.open(truth, os.O_WRONLY), f'{os.getpid()}\\n'.encode())\n"
        "    while True: pass\n"
    )
    (installed / "org_verifiers-1.2.dist-info" / "entry_points.txt").write_text(
        "[calibrl.verifiers]\nhang = hang_and_tell:verify\n"
    )
    os.mkfifo(tmp_path / "pids")
    with trainer(installed, "hang", str(tmp_path / "pids")) as process:
        with (tmp_path / "pids").open() as pids:
            watched = [os.pidfd_open(int(pids.readline())) for _ in range(2)]
        process.kill()
        for worker in watched:
            assert_ends(worker)


def test_a_killed_trainer_leaves_no_child_of_a_verifier(installed: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pids")
    with trainer(installed, "starts_a_child", str(tmp_path / "pids")) as process:
        with (tmp_path / "pids").open() as pids:
            child = os.pidfd_open(int(pids.readline()))
        process.kill()
        assert_ends(child)


def test_installed_plugins_are_found(installed: Path) -> None:
    verifiers = [MathReward(), plugin("length"), plugin("exits", version="1.2")]
    assert plugin_versions(verifiers) == {"plugin-length": "1.2", "plugin-exits": "1.2"}
    assert Scorer(verifiers).versions == plugin_versions(verifiers)
    assert "org_verifiers" not in sys.modules
    with pytest.raises(PluginError, match=r"no verifier 'geometry' is installed.*backtracks 1.2, .*exits 1.2"):
        Scorer([plugin("geometry")])
    with pytest.raises(PluginError, match=r"'exits' is installed in version 1.2, not 2.0"):
        Scorer([plugin("exits", version="2.0")])
    install(installed.parent / "more", name="other", version="3", names=["exits"])
    sys.path.insert(0, str(installed.parent / "more"))
    with pytest.raises(PluginError, match=r"'exits' is installed twice, by org-verifiers 1.2 and other 3"):
        Scorer([plugin("exits")])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "why"), [("missing", "ModuleNotFoundError"), ("not_callable", "must be a function")])
def test_a_plugin_that_cannot_be_loaded_is_an_error(name: str, why: str) -> None:
    with Scorer([plugin(name)], workers=1) as scorer, pytest.raises(PluginError, match=why):
        one(scorer, "a")


def test_two_verifiers_of_one_name_are_refused() -> None:
    settings = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}
    two = [{"type": "plugin", "name": name} for name in ("a", "b")]
    assert len(TrainConfig.model_validate({**settings, "rewards": two}).rewards) == 2
    with pytest.raises(ValueError, match="two entries share a name"):
        TrainConfig.model_validate({**settings, "rewards": [*two, two[0]]})


def test_a_spec_names_no_path() -> None:
    for name in ("../verify", "/tmp/verify.py", "os:system", "a b", ""):
        with pytest.raises(ValueError, match="name"):
            PluginReward(name=name)
