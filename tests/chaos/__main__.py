"""`python -m tests.chaos`: run rounds for a time, then print the table and the last line.

The exit status is 1 if the last line is not `0 jobs lost, 0 steps doubled, 0 processes left`; if a guarantee was broken
(jobs are claimed again within two lease periods, no run restarts without need, no pause is lost); or, without --short,
if a cell is missing.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.chaos import disk, machine, pids, real
from tests.chaos.cells import State, applies
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.reference_runs import ReferenceRuns
from tests.chaos.rounds import Hit, Round
from tests.chaos.stack import LEASE_SECONDS, ChaosStack
from tests.chaos.table import last_line, print_gaps, print_table
from tests.chaos.verify import Found
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS

SECONDS, SHORT_SECONDS = 2000.0, 100.0
FAULTS_WANTED, SHORT_FAULTS = 200, 10
Shown = Callable[[str], None]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults against the queue.")
    parser.add_argument("--seconds", type=float, help="time for rounds; default: 2000, short 100")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of faults and of the jobs that they hit")
    parser.add_argument("--lease", type=float, default=LEASE_SECONDS, help="seconds; a busy machine needs more")
    parser.add_argument("--short", action="store_true", help="at least ten faults, in three minutes or more")
    parser.add_argument(
        "--fault",
        action="append",
        choices=[fault.name for fault in FAULTS],
        help="only this fault (repeat for several), without real training",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"stopped by SIGTERM; seed {options.seed}"))
    seconds = options.seconds or (SHORT_SECONDS if options.short else SECONDS)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    faults = [fault for fault in FAULTS if not options.fault or fault.name in options.fault]
    suite = Suite(folder, options.seed, options.lease, faults)
    suite.run(seconds, short=options.short)
    whole = suite.report(short=options.short or bool(options.fault))
    if whole:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        suite.console.print(f"logs and all output of the jobs: {folder}")
    print(last_line(suite.strokes, suite.found), flush=True)
    sys.exit(not whole)


class Suite:
    """Run all rounds, one stack after the other, and collect their findings."""

    def __init__(self, folder: Path, seed: int, lease: float, faults: list[Fault]) -> None:
        self.console = Console(width=max(120, Console().width))
        self.folder, self._seed, self._lease, self._faults = folder, seed, lease, faults
        self.strokes, self.hits, self.found = 0, list[Hit](), Found()
        self._without: dict[str, str] = {}

    def run(self, seconds: float, *, short: bool) -> None:
        """Run the rounds against the trainer without torch, then those against the real one."""
        started = time.monotonic()
        columns = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            bar = progress.add_task("starting", total=seconds)

            def shown(words: str) -> None:
                progress.update(bar, completed=time.monotonic() - started, description=words)
                if not self.console.is_terminal:
                    print(f"{time.monotonic() - started:6.0f} s  {words}", flush=True)

            with ChaosStack(self.folder / "fake", lease_seconds=self._lease) as stack:
                self._play(stack, started + seconds, SHORT_FAULTS if short else 0, shown)
            if len(self._faults) == len(FAULTS):
                shown("real training")
                strokes, found = real.play(self.folder / "real", self._seed, short=short)
                self.strokes += strokes
                self._add(f"real training, {strokes} faults", found, shown)
        self._check_nothing_left()

    def _play(self, stack: ChaosStack, until: float, wanted: int, shown: Shown) -> None:
        """Run rounds until the time `until` and until there were `wanted` faults: a busy machine takes longer."""
        self._look(stack)
        references = ReferenceRuns(self.folder / "references", "tests.support.fake_trainer")
        for number, (fault, aim, rng) in enumerate(self._plan(), 1):
            if time.monotonic() > until and self.strokes >= wanted:
                break
            result = Round(stack, fault, aim, rng, references).play()
            self.strokes += result.strokes
            self.hits += result.hits
            self._add(f"round {number}, {self.strokes} faults: {fault.name} x {aim}", result.found, shown)

    def _plan(self) -> Iterator[tuple[Fault, State, random.Random]]:
        """Yield, without end, the fault with the fewest rounds, at the state that it has hit least."""
        rng = random.Random(self._seed)
        rounds: Counter[str] = Counter()
        while True:
            struck = Counter((hit.fault, hit.state) for hit in self.hits)
            faults = [fault for fault in self._faults if fault.name not in self._without]
            rng.shuffle(faults)
            fault = min(faults, key=lambda one: rounds[one.name])
            states = [state for state in State if applies(fault.name, state)]
            rng.shuffle(states)
            rounds[fault.name] += 1
            yield fault, min(states, key=lambda state: struck[fault.name, state]), random.Random(rng.random())

    def _look(self, stack: ChaosStack) -> None:
        """List the faults that this machine does not permit."""
        self._without |= stack.without
        if machine.FAKETIME is None:
            self._without["clock jumps"] = "no libfaketime: apt-get install faketime"
        if trouble := disk.possible(self.folder / "small"):
            self._without["disk full"] = trouble

    def _add(self, what: str, found: Found, shown: Shown) -> None:
        self.found.add(found)
        shown(what)
        for words in found.words:
            self.console.print(f"  {what}: {words}", soft_wrap=True, markup=False, highlight=False)

    def _check_nothing_left(self) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while (left := processes_with(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.found.left += len(left)
        self.found.words += [f"process {pid} is left at the end: {pids.command(pid)}" for pid in left]

    def report(self, *, short: bool) -> bool:
        """Print the findings; return True if all is well."""
        names = [fault.name for fault in self._faults]
        print_table(self.console, names, self.hits)
        possible = [name for name in names if name not in self._without]
        missing = print_gaps(self.console, possible, self.hits, self._without)
        for words in self.found.words:
            self.console.print(f"found: {words}", soft_wrap=True, markup=False, highlight=False)
        self.console.print(f"promises broken: {self.found.broken}; seed {self._seed}")
        few = not short and (bool(missing) or self.strokes < FAULTS_WANTED)
        return not (self.found.lost or self.found.doubled or self.found.left or self.found.broken or few)


if __name__ == "__main__":
    main()
