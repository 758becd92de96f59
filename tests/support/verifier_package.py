"""A package of verifiers, as pip would install it, whose verifiers misbehave in many ways."""

import textwrap
from pathlib import Path
from typing import Any

from calibrl_core.verifiers import PluginReward
from calibrl_core.verifiers.scorer import Score, Scorer

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
    def sees(seen):
        with pathlib.Path(seen.truth).open("a") as file:
            print(seen.completion, seen.question, [*map(len, seen.images)], seen.item["level"], seen.group, file=file)
        return 0.75
    def in_batches(several):
        short = any(seen.completion == "short" for seen in several)
        return [len(several) / 10 for _ in several[short:]]
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


def plugin(name: str, **settings: Any) -> PluginReward:
    return PluginReward(name=name, **{"time_limit_seconds": 60.0, **settings})


def score_of(scorer: Scorer, completion: str, truth: str = "") -> Score:
    (score,) = scorer.score_all([completion], [truth])
    return score
