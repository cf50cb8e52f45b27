"""The job of the demo: audit modules of the standard library.

One work item a module, and the task's own function, which writes the index, after all of them.
Workers run in the job's directory, so every path here is relative.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import apsw
import msgspec

from holdfast.context import Context
from holdfast.demo.appending import append_line, read_lines
from holdfast.demo.library import extract_facts, source_path
from holdfast.demo.standin import LABEL, offline_model
from holdfast.evidence import Evidence
from holdfast.models import Task, WorkItem
from holdfast.runner import TaskRunner
from holdfast.store.payload import decode_payload
from holdfast.tool import Done, NotDone, idempotency_key, tool

DATABASE = "holdfast.db"
RESULTS = "results.db"
OUTBOX = "outbox.jsonl"
REPORTS = "reports"
INDEX = "index.md"
CONCURRENCY = 2
"""Work items a worker executes at a time: a kill hits several at once."""

MAX_CRASHES = 12
"""Crashes in a row, without progress, after which an item is blamed. Many, because here they all
come from outside: at ten kills a second, three in a row hit the same item by chance."""

DELIVERY = 0.25
"""Seconds the outbox takes to accept a notification, and as long again to say so: kills that fall
in between leave notifications in doubt."""


class Notice(msgspec.Struct, frozen=True):
    """One line of the outbox."""

    key: str
    module: str
    text: str


# -- tools ----------------------------------------------------------------------------------------


@tool(effect="read")
def read_source(module: str) -> str:
    """Return the source of a module."""
    path = source_path(module)
    if path is None:
        message = f"the source of {module} isn't there"
        raise FileNotFoundError(message)
    return path.read_text(encoding="utf-8")


@tool(effect="idempotent")
def write_file(path: str, text: str) -> int:
    """Write a file whole or not at all; returns its size in bytes."""
    target = Path(path)
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
    return target.stat().st_size


@tool(effect="idempotent")
def put_row(module: str, functions: int, classes: int, documented: int, todos: int) -> None:
    """Insert the row of a module, or replace it."""
    connection = apsw.Connection(RESULTS)
    try:
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS modules (module TEXT PRIMARY KEY, functions INTEGER, "
            "classes INTEGER, documented INTEGER, todos INTEGER)"
        )
        connection.execute(
            "INSERT OR REPLACE INTO modules VALUES (?, ?, ?, ?, ?)",
            (module, functions, classes, documented, todos),
        )
    finally:
        connection.close()


def look_into_the_outbox(arguments: dict[str, Any], key: str) -> Done | NotDone:
    """Say whether a notification was sent: its idempotency key is in the outbox, or it isn't."""
    sent = any(notice.key == key for notice in read_outbox(Path()))
    return Done(_receipt(arguments["module"], key)) if sent else NotDone()


# An append that the kernel has accepted is there for every reader at once, and no dead process can
# append later: there is nothing to wait for.
@tool(effect="once", reconcile=look_into_the_outbox, settle_after=0)
def notify(module: str, text: str) -> str:
    """Append a notification to the outbox: not to be repeated."""
    key = idempotency_key()
    time.sleep(DELIVERY)
    append_line(Path(OUTBOX), msgspec.json.encode(Notice(key, module, text)))
    time.sleep(DELIVERY)
    return _receipt(module, key)


def _receipt(module: str, key: str) -> str:
    return f"{module}:{key[:8]}"


def read_outbox(directory: Path) -> list[Notice]:
    """Return what was sent, in order."""
    lines = read_lines(directory / OUTBOX)
    return [msgspec.json.decode(line, type=Notice) for line in lines]


# -- handlers -------------------------------------------------------------------------------------


async def audit_module(ctx: Context, module: str) -> dict[str, Any]:
    """Audit one module: read, count, summarise, write, prove, notify."""
    source = await ctx.tool(read_source, module)
    facts = await ctx.options(effect="read").step(extract_facts, module, source)
    notes: list[str] = []
    for section in facts["sections"]:
        answer = await ctx.llm(offline_model, section_prompt(module, section))
        notes.append(f"{section['name']}: {answer['text']}")
    summary = await ctx.llm(offline_model, summary_prompt(facts))
    report = {**facts, "notes": notes, "summary": summary["text"], "summarised_by": LABEL}
    path = f"{REPORTS}/{module}.json"
    await ctx.tool(write_file, path, msgspec.json.format(msgspec.json.encode(report)).decode())
    row = {name: facts[name] for name in ("functions", "classes", "documented", "todos")}
    await ctx.tool(put_row, module, **row)
    await ctx.checkpoint(
        {"module": module},
        evidence=[
            Evidence.file(path),
            # Isolated (-I): it must not depend on what lies about in the job's directory.
            Evidence.command([sys.executable, "-I", "-m", "json.tool", path, os.devnull]),
            Evidence.db_row(f"sqlite:///{RESULTS}", "modules", {"module": module}, row),
        ],
        type="tool_executed",
    )
    await ctx.tool(notify, module, f"{module} was audited: {facts['todos']} notes to self in it")
    return {"module": module, "summary": summary["text"], **row}


def section_prompt(module: str, section: dict[str, Any]) -> str:
    """Return what is asked about one definition."""
    kind = "class" if section["kind"] == "ClassDef" else "function"
    return f"What is the {kind} {module}.{section['name']} for?\n> {section['about']}"


def summary_prompt(facts: dict[str, Any]) -> str:
    """Return what is asked about a whole module."""
    return f"Summarise the module {facts['module']} in a sentence.\n> {facts['about']}"


async def audit_library(ctx: Context, modules: list[str]) -> dict[str, int]:
    """Write the index over the reports of all modules."""
    audited: list[dict[str, Any]] = [ctx.results[module] for module in modules]
    await ctx.tool(write_file, INDEX, index_text(audited))
    totals = {
        name: sum(each[name] for each in audited) for name in ("functions", "classes", "todos")
    }
    totals["modules"] = len(audited)
    await ctx.checkpoint(totals, evidence=Evidence.file(INDEX), type="state_transition")
    return totals


def index_text(audited: list[dict[str, Any]]) -> str:
    """Return the index as Markdown."""
    lines = [
        "# Audit of the standard library",
        "",
        f"Summaries: {LABEL}.",
        "",
        "| module | functions | classes | documented | notes to self | summary |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| [{each['module']}]({REPORTS}/{each['module']}.json) | {each['functions']} | "
        f"{each['classes']} | {each['documented']} | {each['todos']} | "
        f"{each['summary'].replace('|', '/')} |"
        for each in audited
    ]
    return "\n".join(lines) + "\n"


def new_runner(where: str, worker_id: str | None = None) -> TaskRunner:
    """Return a runner that knows the job."""
    made = TaskRunner(where, worker_id=worker_id, concurrency=CONCURRENCY)
    made.task(max_crashes=MAX_CRASHES)(audit_module)

    @made.planner(made.task(max_crashes=MAX_CRASHES)(audit_library))
    def plan(task: Task) -> list[WorkItem]:
        """Plan one work item a module."""
        given: Any = decode_payload(made.store, task.task_id, task.input)
        return [WorkItem(name, audit_module, {"module": name}) for name in given["modules"]]

    return made


runner = new_runner(f"sqlite:///{DATABASE}")
"""For the command line, in the job's directory: `holdfast worker holdfast.demo.job:runner`."""
