"""Trainings as commands, also when everything is killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from contextlib import suppress

import pytest

from pyg_nas_np.cli import main
from pyg_nas_np.cli.search_budget_journal import Journal
from pyg_nas_np.cli.search_budget_run import Command, places, run_trainings
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import ParameterSpace
from pyg_nas_np.utils import InvalidLabelsError

SPACE = ParameterSpace({"depth": [1, 2, 3, 4], "width": [8, 16, 32]}, name="own")
EPOCHS = Fidelity("epochs", (4, 12), continued=True)


def journal(path, budget=3.0):
    return Journal(BudgetedSearch(SPACE, EPOCHS, budget, initial=4), path)


def script(tmp_path, body):
    path = tmp_path / "train.py"
    path.write_text(body)
    return (
        f"{shlex.quote(sys.executable)} -S {shlex.quote(str(path))} {{depth}} {{width}} {{start}} {{level}} {{trial}}"
    )


LABEL = "import sys\nd, w, start, level, trial = map(float, sys.argv[1:])\n"


def test_words_are_never_read_by_a_shell():
    made = Command("train 'a b' --name={name}-{level}", ["name", "level", "gone"])
    assert made.words({"name": "x; rm *", "level": 4.0}) == ["train", "a b", "--name=x; rm *-4"]
    assert Command("train {gone}", ["gone"]).words({}) == ["train", ""]


@pytest.mark.parametrize(("template", "said"), [("", "is empty"), ("'a", "cannot be read"), ("a {b}", "none of level")])
def test_wrong_commands(template, said):
    with pytest.raises(ValueError, match=said):
        Command(template, ["level"])


def test_the_budget_is_spent(tmp_path):
    made, seen = journal(tmp_path / "s.pt"), []
    command = Command(script(tmp_path, LABEL + "print('epoch 1')\nprint(d + w / 32 - 1 / level)"), places(made))
    run_trainings(made, command, 2, seen.append)
    assert made.search.spent <= 3.0 + 1e-9
    assert len(seen) == len(made.trainings) == len(journal(tmp_path / "s.pt").trainings)
    assert made.counts()["finished"] >= 2
    for training in made.trainings:
        arch = SPACE.from_str(training.arch)
        assert training.label == pytest.approx(arch["depth"] + arch["width"] / 32 - 1 / training.level)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('out of memory')", r"status 1 \(out of memory\)"),
        ("print('done')", "'done' and not its label"),
        ("pass", "'' and not its label"),
    ],
)
def test_a_failed_command_can_be_repeated(tmp_path, body, said):
    made = journal(tmp_path / "s.pt")
    bad = Command(script(tmp_path, LABEL + body), places(made))
    with pytest.raises(InvalidLabelsError, match=said):
        run_trainings(made, bad, 1, lambda _: None)
    again = journal(tmp_path / "s.pt")
    spent = again.search.spent
    assert [d.running for d in again.trainings] == [True]
    good = Command(script(tmp_path, LABEL + "print('nan' if trial == 1 else d)"), places(again))
    run_trainings(again, good, 1, lambda _: None)
    assert again.state_of(again.trainings[0]) == "diverged"
    assert spent < again.search.spent <= 3.0 + 1e-9


def test_a_command_that_is_not_there(tmp_path):
    made = journal(tmp_path / "s.pt")
    with pytest.raises(InvalidLabelsError, match="cannot be started"):
        run_trainings(made, Command(str(tmp_path / "nothing"), []), 1, lambda _: None)


def test_an_interrupt_that_python_ignores_ends_the_search(tmp_path):
    made, before = journal(tmp_path / "s.pt"), signal.getsignal(signal.SIGINT)
    body = LABEL + "import time\nif trial > 2:\n    time.sleep(60)\nprint(d + w / 32 - 1 / level)"

    def told(_training):
        # As in a callback of the collector of garbage, whose exceptions are printed and ignored.
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_trainings(made, Command(script(tmp_path, body), places(made)), 2, told)
    assert signal.getsignal(signal.SIGINT) is before
    assert any(training.label is not None for training in journal(tmp_path / "s.pt").trainings)


def command(arguments, log):
    with open(log, "w", encoding="utf-8") as out:
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
    sys.argv = ["pyg-nas-np", *arguments]
    main()


def started(processes, tmp_path, template):
    space = tmp_path / "space.json"
    space.write_text(json.dumps({"name": "own", "parameters": {"depth": [1, 2, 3, 4], "width": [8, 16, 32]}}))
    arguments = ["search", "--budget", "3", "--state", str(tmp_path / "s.pt"), "--space", str(space), "--initial", "4"]
    arguments += ["--fidelity", "epochs=4,12", "--continued", "--workers", "2", "--run", template]
    process = processes.Process(target=command, args=(arguments, tmp_path / "log.txt"))
    process.start()
    return process


def wait_for(path, count, process):
    """Waits until so many trainings have ended."""
    for _ in range(4000):
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        assert process.is_alive(), "it ended too early"
        time.sleep(0.05)
    raise AssertionError("it does not get on")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_ended_loses_no_label(tmp_path, how, processes):
    ended, ahead = tmp_path / "ended.txt", tmp_path / "go"
    # The fifth training waits, so that the search still runs when it is ended, however slow this process is.
    body = (
        f"{LABEL}import os, time\nwhile trial > 4 and not os.path.exists({str(ahead)!r}):\n    time.sleep(0.02)\n"
        f"open({str(ended)!r}, 'a').write('x\\n')\nprint(d + w / 32 - 1 / level)"
    )
    template = script(tmp_path, body)
    process = started(processes, tmp_path, template)
    wait_for(ended, 4, process)
    os.kill(process.pid, how)
    process.join(60)
    ahead.touch()
    assert process.exitcode == (-how if how == signal.SIGKILL else 130), (tmp_path / "log.txt").read_text()
    left = journal(tmp_path / "s.pt")
    told = [(d.arch, d.level, d.label) for d in left.trainings if d.label is not None]
    # At most those of both workers, and the one whose label was being written.
    assert len(told) >= 1
    assert left.search.spent == pytest.approx(sum(d.price for d in left.trainings))
    again = journal(tmp_path / "s.pt")
    run_trainings(again, Command(template, places(again)), 2, lambda _: None)
    found = [(d.arch, d.level, d.label) for d in again.trainings]
    assert set(told) <= set(found)
    assert len(found) == len({(arch, level) for arch, level, _ in found})
    assert again.search.spent == pytest.approx(sum(d.price for d in again.trainings))
    assert again.search.spent <= 3.0 + 1e-9
