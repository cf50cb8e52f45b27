"""The reference task: every effect class, evidence, a plan of three items, a child, waits.

What it does to the world is known beforehand (`DUE`), so that after any number of crashes a checker
can compare the two.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from holdfast import operations
from holdfast.context import Context
from holdfast.evidence import Evidence
from holdfast.handlers import Handler
from holdfast.models import Task, WorkItem
from holdfast.runner import TaskRunner
from holdfast.states import Effect
from holdfast.store import Store
from holdfast.testing.world import ACKNOWLEDGED, OUTBOX, PROVIDER, RECORDS, World
from holdfast.tool import Done, NotDone, Reconciled, Tool, idempotency_key

KEY = "reference"
"""The key the task is submitted under: whoever runs it, it is the same task."""

NOTES = "notes.md"
"""The evidence file, in the world's directory."""

DUE_OUTBOX = (
    "letter:first", "letter:second", "letter:third", "letter:child", "notice:half way",
    "notice:finished",
)  # fmt: skip
"""What `once` tools have to send, each once. Letters can be reconciled, notices can't."""

DUE_RECORDS = ("record:1", "record:2")
"""What the idempotent tool has to put, each under one key."""

DUE_PROMPTS = ("notes on tides", "a title", "better", "better", "summary")
"""What the model has to be asked. One is asked twice, behind different checkpoints."""


class Reference:
    """The task's handlers and tools, on one store and one world.

    Args:
        store: where it is recorded.
        world: where its effects go.
        lease: seconds.
        concurrency: items executed at a time; with 1 no two commits ever share a transaction.
    """

    def __init__(self, store: Store, world: World, lease: float, concurrency: int) -> None:
        self.world = world
        self.store = store
        self.runner = TaskRunner(
            store, lease=lease, workspace=str(world.root), concurrency=concurrency
        )
        self.look_up = Tool(self._look_up, effect=Effect.READ, name="look_up")
        self.put = Tool(self._put, effect=Effect.IDEMPOTENT, name="put")
        self.send_letter = Tool(
            self._send_letter, name="send_letter", reconcile=self._was_sent, settle_after=0.0
        )
        self.post_notice = Tool(self._post_notice, name="post_notice")
        task = self.runner.task
        self.whole: Handler[[str], Any] = task(name="reference")(self._whole)
        self._collecting = task(name="collect")(self._collect)
        self._publishing = task(name="publish")(self._publish)
        self._announcing = task(name="announce")(self._announce)
        self._child = task(name="summarise")(self._summarise)
        self.runner.planner(self.whole)(self._plan)

    def run(self) -> Any:  # noqa: ANN401  the task's result
        """Run the task to its end, or go on with it."""
        return self.runner.options(key=KEY).run(self.whole, "tides")

    # -- the items -------------------------------------------------------------------------------

    def _plan(self, task: Task) -> list[WorkItem]:
        del task
        return [
            WorkItem("collect", self._collecting, {"topic": "tides"}),
            WorkItem("publish", self._publishing, after=("collect",)),
            WorkItem("announce", self._announcing, after=("collect",)),
        ]

    async def _collect(self, ctx: Context, topic: str) -> str:
        found = await ctx.tool(self.look_up, topic)
        notes = await ctx.options(name="model").llm(self._ask, f"notes on {found}")
        self._acknowledge("collect:notes", notes)
        await ctx.options(name="write").step(self._write_notes, notes)
        number = (await ctx.checkpoint({"notes": notes}, evidence=Evidence.file(NOTES))).number
        self._acknowledge("collect:checkpoint", number)
        title = await ctx.options(name="model").llm(self._ask, "a title")
        self._acknowledge("collect:title", title)
        return notes

    async def _publish(self, ctx: Context) -> list[str]:
        texts: list[str] = await ctx.restore([])
        while len(texts) < len(DUE_RECORDS):
            # The same call in every round: only the checkpoint between them tells them apart.
            text = await ctx.options(name="model").llm(self._ask, "better")
            self._acknowledge(f"publish:better:{len(texts)}", text)
            await ctx.tool(self.put, DUE_RECORDS[len(texts)])
            texts = [*texts, text]
            await ctx.checkpoint(texts)
            self._acknowledge(f"publish:state:{len(texts)}", texts)
        await ctx.progress("published", 2, 2)
        await ctx.options(name="say_go").step(self._say_go, ctx.task.task_id)
        return texts

    async def _announce(self, ctx: Context) -> list[str]:
        first = await ctx.tool(self.send_letter, "first")
        self._acknowledge("announce:first", first)
        posted = await ctx.tool(self.post_notice, "half way")
        self._acknowledge("announce:half way", posted)
        both = await ctx.map(self._letter_in(ctx), ["second", "third"])
        self._acknowledge("announce:both", both)
        return [first, posted, *both]

    def _letter_in(self, ctx: Context) -> Any:  # noqa: ANN401  an async function
        async def letter(name: str) -> str:
            sent = await ctx.tool(self.send_letter, name)
            self._acknowledge(f"announce:{name}", sent)
            return sent

        return letter

    async def _summarise(self, ctx: Context, text: str) -> str:
        summary = await ctx.options(name="model").llm(self._ask, "summary")
        self._acknowledge("child:summary", summary)
        sent = await ctx.tool(self.send_letter, "child")
        self._acknowledge("child:sent", sent)
        return f"{text}: {summary}"

    async def _whole(self, ctx: Context, topic: str) -> dict[str, Any]:
        name = await ctx.uuid("name")
        word = await ctx.signal("go")
        self._acknowledge("main:word", word)
        summary = await ctx.child(self._child, text=topic)
        self._acknowledge("main:summary", summary)
        await ctx.sleep("pause", 0.01)
        last = await ctx.tool(self.post_notice, "finished")
        self._acknowledge("main:name", str(name))
        self._acknowledge("main:last", last)
        return {"name": str(name), "word": word, "summary": summary, **ctx.results}

    def _acknowledge(self, what: str, value: object) -> None:
        self.world.note(ACKNOWLEDGED, what, value=value)

    # -- the tools -------------------------------------------------------------------------------

    async def _look_up(self, topic: str) -> str:
        return topic

    async def _ask(self, prompt: str) -> str:
        output = f"{prompt} #{uuid4().hex}"
        self.world.effect(PROVIDER, prompt, output=output)
        return output

    def _write_notes(self, notes: str) -> int:
        return (self.world.root / NOTES).write_text(notes, "utf-8")

    async def _say_go(self, task_id: str) -> None:
        await operations.send_signal(self.store, task_id, "go", "go")

    async def _put(self, name: str) -> str:
        self.world.effect(RECORDS, name, key=idempotency_key())
        return name

    async def _send_letter(self, to: str) -> str:
        self.world.effect(OUTBOX, f"letter:{to}", key=idempotency_key())
        return f"sent to {to}"

    async def _was_sent(self, arguments: dict[str, Any], key: str) -> Reconciled:
        letter = f"letter:{arguments['to']}"
        for line in self.world.lines(OUTBOX):
            if line["what"] == letter and line["key"] == key:
                return Done(f"sent to {arguments['to']}")
        return NotDone()

    async def _post_notice(self, text: str) -> str:
        self.world.effect(OUTBOX, f"notice:{text}", key=idempotency_key())
        return f"posted {text}"
