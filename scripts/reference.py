"""Write the generated pages of the reference from the code, or say that they are out of date.

python scripts/reference.py            write docs/reference/{api/*,cli,states}.md
python scripts/reference.py --check    exit with 1 and name the pages that differ
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast import states

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
WIDTH = 90
NOTE = "<!-- Written by scripts/reference.py from the code. Edit the docstrings, then run it. -->\n"

MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "runner": ("Submit and run tasks", ("TaskRunner",)),
    "submitting": ("Options, and following what was submitted", ("Submitter", "TaskHandle")),
    "handlers": ("What a runner has registered", ("Handler", "TaskOptions")),
    "context": ("What an async handler is given", ("Context", "CallOptions")),
    "sync_context": ("What a sync handler is given", ("SyncContext", "SyncModelStream")),
    "answer": ("What a model answers", ("Answer",)),
    "model_calls": ("Answers that arrive piece by piece", ("ModelStream",)),
    "tool": (
        "What a function does to the world",
        ("tool", "Tool", "Done", "NotDone", "Unknown", "idempotency_key"),
    ),
    "models": (
        "Plans and records",
        (
            "WorkItem", "RetryPolicy", "ItemPolicy", "Budget", "BudgetRecord", "ApprovalRecord",
            "Task", "ItemRecord", "Checkpoint", "Event",
        ),
    ),
    "evidence": (
        "Claims about the world",
        ("Evidence", "EvidencePack", "Verdict", "VerdictStatus", "PackVerdict", "WorkspaceRef"),
    ),
    "verifiers": ("Checking claims", ("EvidenceVerifier",)),
    "workspace": ("The directory evidence is about", ("Workspace",)),
    "leases": ("Leases on names of your own", ("LeaseManager",)),
    "journal": ("What an item did", ("Journal",)),
    "tool_ledger": ("Tool calls, recorded", ("ToolLedger",)),
    "approvals": ("A person's consent", ("Approval",)),
    "llm_cache": ("Model outputs, recorded and shared", ("LLMOutputCache", "Reuse")),
    "checkpoints": ("State that may be resumed from", ("CheckpointManager",)),
    "resume_point": ("Where to resume", ("ResumePoint", "PassedOver")),
    "rechecks": ("Checking standing claims again", ("Recheck",)),
    "schedules": ("Tasks at certain times", ("Scheduled",)),
    "worker": ("Executing what others submitted", ("Worker",)),
    "sweep": ("Recovery and retention", ("RecoverySweep", "Retention", "Pruned", "prune")),
    "operations": (
        "What people do to tasks",
        (
            "find_task", "cancel", "retry", "send_signal", "resolve", "approvals_of", "approve",
            "reject", "budget_of", "add_to_budget", "needs_of", "limit_queue", "change_schedule",
            "verify_chains",
            "ChainReport",
        ),
    ),
    "store": ("The database", ("open_store", "Store", "Pending")),
    "states": (
        "States and kinds",
        ("ItemStatus", "TaskStatus", "Effect", "ApprovalPolicy", "CheckpointType"),
    ),
    "usage": ("What a model call used", ("Usage", "usage_of")),
    "secret": ("Values that are never stored", ("Secret",)),
    "registry": ("Types that may come back from stored data", ("register_type",)),
    "integrations.pydantic_ai.agent": ("Agents of Pydantic AI", ("DurableAgent",)),
    "clock": ("Time", ("Clock", "SystemClock")),
    "agents.workspace_tools": ("What an agent can do in a workspace", ("WorkspaceTools",)),
    "agents.modes": ("Stages of agent work", ("Mode", "modes_named")),
    "agents.selector": ("Which modes a goal needs", ("ModeSelector", "Rule", "Selection")),
    "agents.pipeline": (
        "Modes in their order",
        ("ModePipelineRunner", "Pipeline", "PipelineResult", "StageOutput"),
    ),
    "agents.permissions": ("What tools may do", ("Permissions", "AllowedCommand")),
    "agents.sandbox": ("Commands in a sandbox", ("Sandbox",)),
    "agents.fingerprint": ("What is in a workspace", ("fingerprint", "Fingerprint")),
    "agents.rounds": ("Agents on a runner", ("Agent",)),
    "agents.assignment": ("What an agent is to reach", ("Assignment",)),
    "agents.plan": ("Plans that a model makes", ("Plan", "PlannedItem", "PlannedEvidence")),
    "agents.results": ("What comes of it", ("AgentResult", "ItemResult")),
    "agents.gates": (
        "When an agent's work counts as done",
        ("Gate", "GateResult", "find_gates", "command_gate", "run_gates"),
    ),
}  # fmt: skip
"""What is public, by module: a heading and the names, in reading order."""

OPTIONAL = {"testing": "Testing your own handlers"}
"""Packages that list their own names in `__all__`."""


# -- signatures, as they stand in the source ------------------------------------------------------


def syntax_of(thing: Any) -> Any:  # noqa: ANN401  whatever was defined
    """Return the syntax tree of a class or function."""
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def parameters(node: Any, *, bound: bool) -> list[str]:  # noqa: ANN401  either kind of function
    """Return a function's parameters as text; without the first where that is `self`."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    parts = [_parameter(*pair) for pair in zip(positional, defaults, strict=True)]
    if given.posonlyargs:
        parts.insert(len(given.posonlyargs), "/")
    if bound:
        parts = parts[1:]
        parts = parts[1:] if parts[:1] == ["/"] else parts
    if given.vararg:
        parts.append("*" + _parameter(given.vararg, None))
    elif given.kwonlyargs:
        parts.append("*")
    pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    parts += [_parameter(*pair) for pair in pairs]
    if given.kwarg:
        parts.append("**" + _parameter(given.kwarg, None))
    return parts


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation is not None:
        text += f": {ast.unparse(argument.annotation)}"
    if default is not None:
        text += f" = {ast.unparse(default)}" if argument.annotation else f"={ast.unparse(default)}"
    return text


def signature(name: str, parts: list[str], returns: str, prefix: str = "") -> str:
    """Return one call signature, broken by parameter where it is long."""
    line = f"{prefix}{name}({', '.join(parts)}){returns}"
    if len(line) <= WIDTH:
        return line
    inside = "".join(f"    {part},\n" for part in parts)
    return f"{prefix}{name}(\n{inside}){returns}"


def function_signature(node: Any, *, owner: str = "") -> str:  # noqa: ANN401
    """Return the signature of a function, or of a method of `owner`."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    decorators = {ast.unparse(each) for each in node.decorator_list}
    if "asynccontextmanager" in decorators:
        prefix = "async with "
    elif "contextmanager" in decorators:
        prefix = "with "
    if "classmethod" in decorators:
        prefix = f"{owner}."
    bound = bool(owner) and "staticmethod" not in decorators
    return signature(node.name, parameters(node, bound=bound), returns, prefix)


# -- docstrings ------------------------------------------------------------------------------------


def prose(doc: str | None) -> str:
    """Return a Google docstring as Markdown."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(doc or "").splitlines():
        heading = re.fullmatch(r"(Args|Raises|Returns):", line)
        if heading:
            section = heading[1]
            lines += [f"**{'Arguments' if section == 'Args' else section}**", ""]
        elif not line:
            lines.append("")
        elif section and line.startswith("    ") and not line.startswith("     "):
            name, colon, text = line.strip().partition(": ")
            lines.append(f"- `{name}`: {text}" if colon else f"- {line.strip()}")
        elif section:
            lines.append("  " + line.strip())
        else:
            lines.append(line)
    return _fenced("\n".join(lines)).strip()


def _fenced(text: str) -> str:
    """Turn `::` and the indented lines after it into a fenced block."""

    def block(match: re.Match[str]) -> str:
        body = textwrap.dedent(match[2]).strip("\n")
        return f"{match[1].strip()}\n\n```\n{body}\n```\n\n".lstrip("\n")

    return re.sub(
        r"^(.*?)::\n\n((?:(?: {4}.*)?\n)+(?: {4}.*\n?)?)", block, text + "\n", flags=re.MULTILINE
    )


def described(node: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  a class
    """Yield the members of an enumeration, each with the text that stands below it."""
    body = node.body
    for each, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant):
            text = ""
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = " ".join(str(below.value.value).split())
            yield str(each.value.value), text


# -- pages of the API ------------------------------------------------------------------------------


def document(name: str, thing: Any) -> str:  # noqa: ANN401  a class or a function
    """Return the section of one public name."""
    if inspect.isclass(thing):
        return "\n\n".join(_class_parts(name, thing))
    node = syntax_of(thing)
    shown = [node] if not _overloads(node, thing) else _overloads(node, thing)
    calls = "\n".join(function_signature(each) for each in shown)
    return f"## `{name}`\n\n```py\n{calls}\n```\n\n{prose(thing.__doc__)}"


def _class_parts(name: str, cls: type) -> Iterator[str]:
    node = syntax_of(cls)
    yield f"## `{name}`"
    members = list(described(node))
    if members and not inspect.isabstract(cls) and hasattr(cls, "__members__"):
        yield prose(cls.__doc__)
        yield "\n".join(f"- `{value}`{': ' + text if text else ''}" for value, text in members)
        return
    yield f"```py\n{_constructor(name, node)}\n```"
    yield prose(cls.__doc__)
    for method in _public_methods(node):
        yield _method(name, cls, method)


def _constructor(name: str, node: ast.ClassDef) -> str:
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return signature(name, parameters(each, bound=True), "")
    fields = [
        f"{ast.unparse(each.target)}: {ast.unparse(each.annotation)}"
        + (f" = {ast.unparse(each.value)}" if each.value else "")
        for each in node.body
        if isinstance(each, ast.AnnAssign)
    ]
    if not fields and any(ast.unparse(base) == "Protocol" for base in node.bases):
        return f"class {name}(Protocol)"
    return signature(name, fields, "")


def _public_methods(node: ast.ClassDef) -> list[Any]:
    seen: dict[str, Any] = {}
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name[0] != "_":
            seen[each.name] = each  # the last of several overloads is the implementation
    return list(seen.values())


def _method(owner: str, cls: type, node: Any) -> str:  # noqa: ANN401
    decorators = {ast.unparse(each) for each in node.decorator_list}
    doc = prose(ast.get_docstring(node))
    if {"property", "functools.cached_property"} & decorators:
        kind = f": {ast.unparse(node.returns)}" if node.returns else ""
        return f"### `{owner}.{node.name}`\n\n```py\n{node.name}{kind}\n```\n\n{doc}"
    shown = _overloads(node, inspect.getattr_static(cls, node.name)) or [node]
    calls = "\n".join(function_signature(each, owner=owner) for each in shown)
    return f"### `{owner}.{node.name}`\n\n```py\n{calls}\n```\n\n{doc}"


def _overloads(node: Any, thing: Any) -> list[Any]:  # noqa: ANN401
    """Return the overloads of a function: they say more than its implementation."""
    function = inspect.unwrap(getattr(thing, "__func__", thing))
    if not inspect.isfunction(function):
        return []
    module = ast.parse(Path(inspect.getfile(function)).read_text("utf-8"))
    owner = function.__qualname__.rpartition(".")[0]
    scope: list[ast.stmt] = module.body
    if owner:
        scope = next(
            each.body for each in scope if isinstance(each, ast.ClassDef) and each.name == owner
        )
    return [
        each
        for each in scope
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        and each.name == node.name
        and any(ast.unparse(mark) == "overload" for mark in each.decorator_list)
    ]


def api_pages() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every page of the API reference."""
    index = [
        "# API",
        "",
        NOTE,
        "Every name below is public. Most can be imported from `holdfast`.",
        "",
    ]
    for module_name, (heading, names) in _modules().items():
        module = importlib.import_module(f"holdfast.{module_name}")
        sections = [document(name, getattr(module, name)) for name in names]
        top = f"# holdfast.{module_name}\n\n{NOTE}\n{heading}."
        yield f"api/{module_name}.md", "\n\n".join([top, *sections]) + "\n"
        linked = ", ".join(f"[`{name}`]({module_name}.md#{name.lower()})" for name in names)
        index.append(f"- **{heading}** (`holdfast.{module_name}`): {linked}")
    yield (
        "api/index.md",
        "\n".join([*index, "- **Errors** (`holdfast.errors`): [all of them](../errors.md)"]) + "\n",
    )


def _modules() -> dict[str, tuple[str, tuple[str, ...]]]:
    found = dict(MODULES)
    for name, heading in OPTIONAL.items():
        if importlib.util.find_spec(f"holdfast.{name}"):
            module = importlib.import_module(f"holdfast.{name}")
            found[name] = (heading, tuple(module.__all__))
    return found


# -- states ----------------------------------------------------------------------------------------


def states_page() -> str:
    """Return the page of states, from the tables that the store's checks use."""
    diagrams = states.mermaid().split("\n\n")
    source = "the two tables in `holdfast.states` that the store's tests check every change against"
    parts = [f"# States\n\n{NOTE}\nDrawn from {source}."]
    for title, enum, diagram in (
        ("Work item", states.ItemStatus, diagrams[0]),
        ("Task", states.TaskStatus, diagrams[1]),
    ):
        meaning = "\n".join(
            f"- `{value}`{': ' + text if text else ''}"
            for value, text in described(syntax_of(enum))
        )
        parts.append(f"## {title}\n\n```mermaid\n{diagram}\n```\n\n{meaning}")
    parts.append(
        "`succeeded → ready` (or `pending`) is a [reopening](../concepts/evidence.md#reopening); "
        "`pending → succeeded` gives a reopened item its result back because nothing it builds on "
        "changed."
    )
    return "\n\n".join(parts) + "\n"


# -- commands --------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return the page of commands, from their own help."""
    from holdfast.cli.group import holdfast as group

    parts = [f"# Commands\n\n{NOTE.rstrip()}", _help(group, "holdfast", None)]
    parts += [f"## `{name}`\n\n{_help(command, name, group)}" for name, command in commands(group)]
    return "\n\n".join(parts) + "\n"


def commands(group: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield (name, command) for every command there is."""
    assert isinstance(group, click.Group)  # noqa: S101  a script's own check
    context = click.Context(group, info_name="holdfast")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            yield name, command


def _help(command: click.Command, name: str, parent: click.Command | None) -> str:
    above = (
        None
        if parent is None
        else click.Context(parent, info_name="holdfast", **parent.context_settings)
    )
    settings = {"terminal_width": WIDTH, **command.context_settings}
    context = click.Context(command, info_name=name, parent=above, **settings)
    return f"```text\n{command.get_help(context).rstrip()}\n```"


def pages() -> dict[str, str]:
    """Return every generated page: its path below docs/reference, and its text."""
    return {**dict(api_pages()), "states.md": states_page(), "cli.md": cli_page()}


def main() -> int:
    """Write the pages, or compare them."""
    stale: list[str] = []
    for name, text in pages().items():
        path = REFERENCE / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    for name in stale:
        print(f"{'differs' if '--check' in sys.argv else 'written'}: docs/reference/{name}")  # noqa: T201
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
