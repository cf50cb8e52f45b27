"""What people decide about tasks: `cancel`, `retry`, `fork`, `resolve`, `signal`."""

from __future__ import annotations

import click

from holdfast import errors, operations
from holdfast.cli.application import load_runner
from holdfast.cli.arguments import parse_json
from holdfast.cli.plain import clean, one_line
from holdfast.cli.session import Session, command
from holdfast.forking import fork
from holdfast.operations import Resolution, find_task
from holdfast.states import FINAL_TASK
from holdfast.store import Store, verbs
from holdfast.verifiers import EvidenceVerifier

_task = click.argument("task", metavar="TASK")


@command("cancel")
@_task
@click.option("--reason", default="canceled by a person", metavar="TEXT", help="For the timeline.")
def cancel_command(session: Session, task: str, reason: str) -> None:
    """Cancel a task and everything below it.

    What runs is told to stop, and its `finally` blocks run; the rest is canceled at once.
    """
    with session.store() as store:
        task_id = find_task(store, task).task_id
        touched = session.run(operations.cancel(store, task_id, reason))
        status = store.read(verbs.get_task(task_id)).status
    if not touched:
        lines = [f"Task {task_id} has ended as {status}; nothing was changed."]
    elif status == "canceled":
        lines = [f"Task {task_id} is canceled."]
    else:
        lines = [f"Task {task_id} is canceled as soon as what runs has stopped."]
    document = {"task_id": task_id, "status": status, "canceled": touched}
    session.output.answer(document, lines)


@command("retry")
@_task
def retry_command(session: Session, task: str) -> None:
    """Make what failed, was skipped or quarantined runnable again.

    What was recorded answers as before; only what failed is called again.
    """
    with session.store() as store:
        task_id = find_task(store, task).task_id
        count = session.run(operations.retry(store, task_id))
        status, needs = _standing(store, task_id)
    if count:
        text = f"{count} work item{'s' * (count != 1)} of task {task_id} may run again."
        lines = [text, "A worker goes on with it, or `holdfast resume APP TASK` here."]
    else:
        lines = [f"Nothing of task {task_id} has failed: it is {status}."]
    lines += [clean(f"  {one_line(need)}") for need in needs]
    document = {"task_id": task_id, "status": status, "items": count, "needs": needs}
    session.output.answer(document, lines)


@command("fork")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--state", metavar="JSON", help="What `restore` gives back instead.")
@click.option(
    "--allow-repeat",
    is_flag=True,
    help="Make `once` calls again that the original made after the checkpoint.",
)
@click.option("--app", metavar="APP", help="Where evidence of your own kinds is checked.")
def fork_command(
    session: Session, checkpoint: str, state: str | None, app: str | None, *, allow_repeat: bool
) -> None:  # fmt: skip
    """Make a new task that goes on from a checkpoint.

    Prints the new task's id; the original isn't touched. CHECKPOINT is task:item:number, as
    `holdfast show TASK` lists them.
    """
    given = ... if state is None else parse_json(state, "--state")
    with session.store() as store:
        task_id, colon, rest = checkpoint.partition(":")
        named = f"{find_task(store, task_id).task_id}:{rest}" if colon else checkpoint
        made = session.run(
            fork(store, verifier_of(app), named, state=given, allow_repeat=allow_repeat)
        )
    session.output.answer({"task_id": made, "forked_from": named}, [made])


def verifier_of(app: str | None) -> EvidenceVerifier:
    """Return an application's verifier, which may know kinds of its own, or the plain one."""
    return EvidenceVerifier() if app is None else load_runner(app).verifier


@command("resolve")
@click.argument("entry", metavar="ENTRY")
@click.option("--done", metavar="JSON", help="It happened, and returned this.")
@click.option("--retry", is_flag=True, help="It did not happen: call it again.")
@click.option("--new", is_flag=True, help="An edited function's new call: let it through.")
@click.option(
    "--fail", is_flag=False, flag_value="", metavar="[TEXT]", help="Let the function see a failure."
)
def resolve_command(
    session: Session, entry: str, done: str | None, fail: str | None, *, retry: bool, new: bool
) -> None:  # fmt: skip
    """Settle a call in doubt: say what happened.

    ENTRY is task:item:number, as `holdfast show TASK` and every error name it. Look outside first:
    whether the mail was sent, whether the order is there.
    """
    how = _answer(done, fail, retry=retry, new=new)
    value = parse_json(done, "--done") if done is not None else fail
    with session.store() as store:
        task_id, item_id, seq = operations.parse_entry(entry)
        task_id = find_task(store, task_id).task_id
        named = f"{task_id}:{item_id}:{seq}"
        session.run(operations.resolve(store, named, how, value))
        status, needs = _standing(store, task_id)
    lines = [f"Entry {named} is settled ({how}); task {task_id} is {status}."]
    lines += [clean(f"  {one_line(need)}") for need in needs]
    document = {"entry": named, "how": how, "task_id": task_id, "status": status, "needs": needs}
    session.output.answer(document, map(clean, lines))


def _answer(done: str | None, fail: str | None, *, retry: bool, new: bool) -> Resolution:
    chosen: list[Resolution] = []
    if done is not None:
        chosen.append("done")
    if retry:
        chosen.append("retry")
    if new:
        chosen.append("new")
    if fail is not None:
        chosen.append("fail")
    if len(chosen) != 1:
        message = "Say what happened with exactly one of --done, --retry, --new and --fail."
        raise errors.UsageError(message)
    return chosen[0]


@command("signal")
@_task
@click.argument("name", metavar="NAME")
@click.option("--payload", metavar="JSON", help="What the task's wait returns.")
def signal_command(session: Session, task: str, name: str, payload: str | None) -> None:
    """Send a signal to a task."""
    value = None if payload is None else parse_json(payload, "--payload")
    with session.store() as store:
        task_id = find_task(store, task).task_id
        session.run(operations.send_signal(store, task_id, name, value))
        status = store.read(verbs.get_task(task_id)).status
    lines = [clean(f"Signal {name} is in the mailbox of task {task_id}.")]
    if status in FINAL_TASK:
        lines.append(f"The task has ended as {status}: nobody takes it as things stand.")
    document = {"task_id": task_id, "signal": name, "status": status}
    session.output.answer(document, lines)


def _standing(store: Store, task_id: str) -> tuple[str, list[str]]:
    """Return a task's status, and what it still needs from a person."""
    return store.read(verbs.get_task(task_id)).status.value, operations.needs_of(store, task_id)
