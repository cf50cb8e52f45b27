"""Handlers that kill their process: who is blamed, and what goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast import TaskRunner, errors
from holdfast.store import verbs

if TYPE_CHECKING:
    from collections.abc import Iterator

VICTIMS = Path(__file__).parent.parent / "support" / "victims.py"


class Fleet:
    """Workers in processes of their own, started again whenever one dies."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.runner = TaskRunner(f"sqlite:///{place}/holdfast.db", workspace=str(place))
        self.children: list[subprocess.Popen[bytes]] = []

    def submit(self, *kinds: str):
        code = (
            f"import sys; sys.argv = ['x', {str(self.place)!r}, 'submit', {','.join(kinds)!r}]\n"
            f"exec(open({str(VICTIMS)!r}).read())\n"
            f"print(runner.submit(whole, {list(kinds)!r}).task_id)"
        )
        told = subprocess.run(  # noqa: S603  our own program
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        self.kinds = ",".join(kinds)
        return told.stdout.strip()

    def work_until(self, task_id: str, *statuses: str, seconds: float = 30.0) -> str:
        """Keep one worker alive until the task has one of the statuses."""
        deadline = time.monotonic() + seconds
        child: subprocess.Popen[bytes] | None = None
        while time.monotonic() < deadline:
            status = self.runner.store.read(verbs.get_task(task_id)).status
            if status in statuses:
                break
            if child is None or child.poll() is not None:
                child = subprocess.Popen(  # noqa: S603  our own program
                    [sys.executable, VICTIMS, self.place, "work", self.kinds],
                    stderr=subprocess.DEVNULL,
                )
                self.children.append(child)
            time.sleep(0.02)
        return self.runner.store.read(verbs.get_task(task_id)).status

    def items(self, task_id: str) -> dict:
        return {i.item_id: i for i in self.runner.store.read(verbs.list_items(task_id))}

    def company(self, kind: str) -> list[int]:
        """Return how many others were running in its process at each start of a kind."""
        running: dict[str, int] = {}
        found: list[int] = []
        for line in self.notes(""):
            what, name, pid = line.split()
            if what == "start" and name == kind:
                found.append(running.get(pid, 0))
            running[pid] = running.get(pid, 0) + (1 if what == "start" else -1)
        return found

    def notes(self, what: str) -> list[str]:
        lines = (self.place / "notes").read_text().splitlines()
        return [line for line in lines if line.startswith(what)]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    for child in made.children:
        child.kill()
        child.wait()
    made.runner.close()


def test_a_killer_is_quarantined_innocents_finish_and_a_person_revives_it(fleet: Fleet):
    task_id = fleet.submit("killer", "fine", "fine")
    assert fleet.work_until(task_id, "blocked") == "blocked"
    items = fleet.items(task_id)
    assert {name: item.status.value for name, item in items.items()} == {
        "plan": "succeeded", "killer0": "quarantined", "fine1": "succeeded",
        "fine2": "succeeded", "main": "pending",
    }  # fmt: skip
    assert items["killer0"].crashes == 2
    assert "crashed its process 2 times" in str(items["killer0"].error)
    assert items["fine1"].crashes == items["fine2"].crashes == 0
    task = fleet.runner.store.read(verbs.get_task(task_id))
    with pytest.raises(errors.TaskBlockedError, match="killer0 is quarantined") as caught:
        fleet.runner.outcome(task)
    assert caught.value.needs[0].startswith(f"holdfast retry {task_id}")
    # Three runs: the first, beside the others, blamed nobody; in the other two it was alone.
    assert fleet.company("killer") == [2, 0, 0]

    (fleet.place / "repaired").touch()
    assert fleet.runner.retry(task_id) == 1
    assert fleet.work_until(task_id, "succeeded") == "succeeded"
    assert len(fleet.notes("end killer")) == 1


def test_crashes_with_progress_in_between_are_not_counted(fleet: Fleet):
    task_id = fleet.submit("progress")
    assert fleet.work_until(task_id, "blocked", "succeeded", "failed") == "succeeded"
    assert len(fleet.notes("start progress")) == 7
