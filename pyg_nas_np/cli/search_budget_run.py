r"""Trainings as commands of the user's, several at a time."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from pyg_nas_np.cli.search_budget_journal import Journal, ProposedTraining
from pyg_nas_np.spaces import ParameterSpace
from pyg_nas_np.utils import InvalidLabelsError

_PLACE = re.compile(r"\{([^{}]*)\}")


class Command:
    r"""A command with places for what a training is of; no shell reads it.

    Args:
        template: ``"python train.py --epochs {level} --resume-from {start} --depth {depth}"``.
        names: Names that may stand in braces.

    Raises:
        ValueError: If it is empty, quotes are left open, or a name is not known.

    Example:
        >>> Command("train --depth {depth}", ["depth"]).words({"depth": 4})
        ['train', '--depth', '4']
    """

    def __init__(self, template: str, names: Collection[str]) -> None:
        try:
            self.template = shlex.split(template)
        except ValueError as error:
            raise ValueError(f"--run '{template}' cannot be read as a command: {error}") from error
        if not self.template:
            raise ValueError("--run is empty; give the command that trains one network")
        for name in (name for word in self.template for name in _PLACE.findall(word)):
            if name not in names:
                raise ValueError(f"--run has {{{name}}}, which is none of {', '.join(names)}")

    def words(self, values: Mapping[str, Any]) -> list[str]:
        r"""Returns the words of the command; what an architecture does not have is empty."""
        return [_PLACE.sub(lambda found: _text(values.get(found[1])), word) for word in self.template]


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def places(journal: Journal) -> list[str]:
    r"""Returns the names that may stand in braces."""
    space = journal.search.space
    return ["level", "start", "trial", "arch", *(space.parameters if isinstance(space, ParameterSpace) else ())]


def run_trainings(journal: Journal, command: Command, workers: int, told: Callable[[ProposedTraining], None]) -> None:
    r"""Runs trainings until the budget is spent; the last line of a command's output is the label.

    The journal is saved before a training starts and after each label. Trainings that the journal has as running are
    run first, at no further price: whoever ran them has ended. Where a command fails, those beside it are waited for.

    Args:
        journal: The search.
        command: The command.
        workers: How many run at a time.
        told: Called after each label.

    Raises:
        InvalidLabelsError: If a command fails, or its last line is not a number; the training can be run again.
        KeyboardInterrupt: If the user interrupts; the commands are ended first.
    """
    again = [training for training in journal.trainings if training.running]
    running: dict[Future[float], ProposedTraining] = {}
    failed: InvalidLabelsError | None = None
    processes = _Processes()
    with processes.ended_by_interrupts(), ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while failed is None and len(running) < workers:
                    chosen = [again.pop(0)] if again else journal.ask(1)
                    if not chosen:
                        break
                    journal.save()
                    words = command.words(_values(journal, chosen[0]))
                    running[pool.submit(processes.label, words, chosen[0].number)] = chosen[0]
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    training = running.pop(future)
                    try:
                        label = future.result()
                    except InvalidLabelsError as error:
                        failed = error
                        continue
                    journal.tell(journal.search.space.from_str(training.arch), training.level, label)
                    journal.save()
                    told(training)
        except BaseException:
            processes.stop()
            raise
    if processes.interrupted:
        raise KeyboardInterrupt
    if failed is not None:
        raise failed


def _values(journal: Journal, training: ProposedTraining) -> dict[str, Any]:
    space = journal.search.space
    arch = space.from_str(training.arch)
    values = arch.to_dict() if isinstance(space, ParameterSpace) else {}
    start = 0 if training.start is None else training.start
    return {**values, "level": training.level, "start": start, "trial": training.number, "arch": training.arch}


class _Processes:
    """The commands that run, so that all can be stopped."""

    def __init__(self) -> None:
        # Reentrant: an interrupt may come while the main thread ends the commands.
        self._lock = threading.RLock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self.interrupted = False

    @contextmanager
    def ended_by_interrupts(self) -> Iterator[None]:
        """Ends the commands where SIGINT arrives: Python ignores an exception that is raised in a callback or by the
        collector of garbage."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(_signal: int, _frame: Any) -> None:
            self.interrupted = True
            self.stop()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, end)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def label(self, words: list[str], number: int) -> float:
        with self._lock:
            if self._stopped:
                raise InvalidLabelsError(f"training {number} was not started")
            try:
                # A session of its own: a signal reaches what the command has started, too.
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise InvalidLabelsError(f"training {number} cannot be started: {error}") from error
            self._running.add(process)
        out, err = process.communicate()
        with self._lock:
            self._running.discard(process)
        again = "correct the command and repeat the call, which runs this training again"
        if process.returncode:
            said = (err.strip() or out.strip() or "it printed nothing").splitlines()[-1]
            raise InvalidLabelsError(f"training {number} ended with status {process.returncode} ({said:.200}); {again}")
        last = (out.strip().splitlines() or [""])[-1].strip()
        try:
            return float(last)
        except ValueError:
            raise InvalidLabelsError(
                f"training {number}: the last line of its output is {last[:80]!r} and not its label; {again}"
            ) from None

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
