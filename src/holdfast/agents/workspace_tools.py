"""WorkspaceTools: what an agent can do in a workspace, and nowhere else.

What a model asks for is taken as hostile. A call that may not be or can't be made returns a text
that says so: `Refused: …` or `Failed: …`. It never ends the task.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from holdfast.agents.commands import Commands
from holdfast.agents.files import Content, WorkspaceFiles
from holdfast.agents.names import workspace_names
from holdfast.agents.paths import OwnFiles, workspace_path
from holdfast.agents.permissions import Permissions
from holdfast.agents.refusals import Miss, Refusal
from holdfast.agents.sandbox import Sandbox
from holdfast.agents.searching import MATCHES, search
from holdfast.codec import register_type
from holdfast.evidence import Evidence
from holdfast.states import Effect
from holdfast.tool import Done, NotDone, Reconciled, Tool, Unknown, is_async

READ = 4 * 1024 * 1024
"""Bytes of the largest file that is read or edited."""

WRITE = 1024 * 1024
"""Bytes of the largest content that is written."""

LINES = 2000
"""Lines that one call reads at most."""

SHOWN = 128 * 1024
"""Characters that one call reads at most."""

ENTRIES = 1000
"""Entries of a directory that are listed."""

OnRefusal = Callable[[str, str], object]


class Change(msgspec.Struct, frozen=True):
    """What a call is about to do to a file: SHA-256 of its content before and after.

    `before` is None where there is no file yet.
    """

    before: bytes | None
    after: bytes


register_type(Change, name="holdfast:Change")


class WorkspaceTools:
    """Tools for one agent in one workspace.

    Args:
        root: the workspace.
        permissions: what they may do.
        repeatable: how commands begin that may run again after a crash; others are `once`.
        evidence: claims whose commands may run again, exactly as they are.
        sandbox: `auto`, `required` or `off`; see `Sandbox`.
        mode: what the agent is called in a refusal.
        on_refusal: called with the tool's name and the reason when a call isn't permitted.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        permissions: Permissions | None = None,
        *,
        repeatable: Iterable[Sequence[str]] = (),
        evidence: Iterable[Evidence] = (),
        sandbox: Sandbox | str = Sandbox.AUTO,
        mode: str = "this agent",
        on_refusal: OnRefusal | None = None,
    ) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100  text in, text out
        self._permissions = permissions or Permissions()
        self._prefixes = [tuple(words) for words in repeatable]
        self._exact = {tuple(e.params["argv"]) for e in evidence if e.kind == "command"}
        self._mode = mode
        self._on_refusal = on_refusal
        self._one_at_a_time = threading.Lock()
        self._files = WorkspaceFiles(self.root)
        self._commands = Commands(self.root, self._permissions, Sandbox(sandbox), mode)

    @property
    def all(self) -> tuple[Tool[..., Any], ...]:
        """Every tool; what isn't permitted, it refuses."""
        return (*self._reading, *self._changing, self.run_command)

    @property
    def permitted(self) -> tuple[Tool[..., Any], ...]:
        """Those that the permissions leave something to do."""
        changing = self._changing if self._permissions.change_files else ()
        running = (self.run_command,) if self._permissions.run_commands else ()
        return (*self._reading, *changing, *running)

    @property
    def _reading(self) -> tuple[Tool[..., Any], ...]:
        return self.read_file, self.list_files, self.search_files

    @property
    def _changing(self) -> tuple[Tool[..., Any], ...]:
        return self.write_file, self.edit_file

    # -- the tools -------------------------------------------------------------------------------

    @functools.cached_property
    def read_file(self) -> Tool[..., str]:
        """`read_file(path, start_line=1, max_lines=2000)`: lines of a text file."""
        return self._tool(self._read_file, "read_file", Effect.READ)

    @functools.cached_property
    def list_files(self) -> Tool[..., str]:
        """`list_files(path=".")`: one directory, without ignored files; links are told."""
        return self._tool(self._list_files, "list_files", Effect.READ)

    @functools.cached_property
    def search_files(self) -> Tool[..., str]:
        """`search_files(pattern, path=".", *, regex=False)`: lines, without ignored files."""
        return self._tool(self._search_files, "search_files", Effect.READ)

    @functools.cached_property
    def write_file(self) -> Tool[..., str]:
        """`write_file(path, content)`: a whole file, replaced at once.

        It is `once`, since an old content that is written again would undo later edits. After a
        crash the file's content says whether it was written.
        """
        return self._tool(
            self._write_file,
            "write_file",
            Effect.ONCE,
            observe=functools.partial(self._observed, self._planned_write),
            reconcile=self._reconciled,
            settle_after=0,
        )

    @functools.cached_property
    def edit_file(self) -> Tool[..., str]:
        """`edit_file(path, old, new)`: replaces a text that is there exactly once.

        It is `once`; after a crash the file's content says whether it was made.
        """
        return self._tool(
            self._edit_file,
            "edit_file",
            Effect.ONCE,
            observe=functools.partial(self._observed, self._planned_edit),
            reconcile=self._reconciled,
            settle_after=0,
        )

    @functools.cached_property
    def run_command(self) -> Tool[..., str]:
        """`run_command(argv, timeout=60.0)`: runs a program, without a shell.

        It is `once`, and after a crash inside a person is asked, unless it was declared repeatable.
        """
        return self._tool(
            self._run_command, "run_command", Effect.ONCE, repeatable=self._is_repeatable
        )

    # -- what a model sees of them: names, parameters and docstrings -----------------------------

    def _read_file(self, path: str, start_line: int = 1, max_lines: int = LINES) -> str:
        """Read a text file.

        Args:
            path: relative to the workspace.
            start_line: the first line to read, from 1.
            max_lines: how many lines to read, 2000 at most.
        """
        content = self._files.read(workspace_path(path), READ)
        if b"\0" in content.data:
            raise Miss(f"{path!r} is no text: {len(content.data)} bytes.")
        text = content.data.decode("utf-8", "replace")
        lines = list(io.StringIO(text, newline="\n"))
        first = max(start_line, 1)
        part = lines[first - 1 : first - 1 + min(max(max_lines, 1), LINES)]
        return _lines_told(part, first, len(lines), whole=text.encode() == content.data)

    def _list_files(self, path: str = ".") -> str:
        """List a directory, without what git ignores. Directories end with a slash, links with @.

        Args:
            path: relative to the workspace.
        """
        where = workspace_path(path, allow_root=True)
        entries = self._files.entries(where)
        # What has no part in the fingerprint isn't shown: equal contents look equal.
        names = workspace_names(self.root, OwnFiles(self.root))
        prefix = "" if where == "." else f"{where}/"
        inside = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        here = {name.partition("/")[0] for name in inside}
        found = [entry for entry in entries if entry.name in here]
        marks = {"directory": "/", "link": "@", "special": " (no file)"}
        lines = [
            f"{_printable(e.name)}{marks.get(e.kind, '')}"
            + (f" {e.size} bytes" if e.size is not None else "")
            for e in found[:ENTRIES]
        ]
        if len(found) > ENTRIES:
            lines.append(f"[{len(found) - ENTRIES} more]")
        return "\n".join(lines) or "[nothing]"

    def _search_files(self, pattern: str, path: str = ".", *, regex: bool = False) -> str:
        """Search text files; what git ignores is left out. Returns path:line: text.

        Args:
            pattern: a text, found exactly as it is; or a regular expression.
            path: a file or directory, relative to the workspace.
            regex: whether the pattern is a regular expression.
        """
        where = workspace_path(path, allow_root=True)
        found = search(self._files, pattern, where, regex=regex)
        lines = [f"{_printable(name)}:{number}: {_printable(line)}" for name, number, line in found]
        if len(found) == MATCHES:
            lines.append(f"[stopped after {MATCHES} lines]")
        return "\n".join(lines) or "[nothing found]"

    def _write_file(self, path: str, content: str) -> str:
        """Write a whole file; directories are made as needed.

        Args:
            path: relative to the workspace.
            content: all that the file is to contain.
        """
        return self._make(self._planned_write, {"path": path, "content": content})

    def _edit_file(self, path: str, old: str, new: str) -> str:
        """Replace a text in a file by another. It must occur exactly once.

        Args:
            path: relative to the workspace.
            old: the text to replace, with as much around it as makes it unique.
            new: what to put in its place.
        """
        return self._make(self._planned_edit, {"path": path, "old": old, "new": new})

    async def _run_command(self, argv: list[str], timeout: float = 60.0) -> str:  # noqa: ASYNC109
        """Run a program in the workspace. There is no shell: no pipes, no globs, no variables.

        Args:
            argv: the program and its arguments, one string each.
            timeout: seconds after which it is killed, 600 at most.
        """
        return await self._commands.run(argv, timeout)

    # -- what a change does, known before and after ----------------------------------------------

    def _planned_write(self, arguments: dict[str, Any]) -> _Planned:
        self._permissions.require_change(self._mode)
        where = workspace_path(arguments["path"])
        data = _encoded(arguments["content"])
        return _Planned(where, self._files.read_if_there(where, READ), data)

    def _planned_edit(self, arguments: dict[str, Any]) -> _Planned:
        self._permissions.require_change(self._mode)
        where = workspace_path(arguments["path"])
        before = self._files.read(where, READ)
        old, new = _encoded(arguments["old"]), _encoded(arguments["new"])
        return _Planned(where, before, _replaced(before.data, old, new, where))

    def _make(self, plan: _Plan, arguments: dict[str, Any]) -> str:
        with self._one_at_a_time:  # two edits of one file must not both start from the same content
            planned = plan(arguments)
            mode = None if planned.before is None else planned.before.mode
            self._files.write(planned.path, planned.after, mode)
            return _changed(planned.path, planned.change.after)

    def _observed(self, plan: _Plan, arguments: dict[str, Any]) -> Change | None:
        """Return what a call is about to do; None when it is going to say why it does nothing."""
        try:
            return plan(arguments).change
        except Refusal:
            return None

    def _reconciled(self, arguments: dict[str, Any], _: str, change: Change | None) -> Reconciled:
        if change is None:
            return NotDone()
        where = workspace_path(arguments["path"])
        try:
            now = _digest(self._files.read_if_there(where, READ))
            if now == change.after:
                self._files.sync(where)  # the process may have ended before it was durable
                return Done(_changed(where, change.after))
        except Refusal:
            return Unknown()
        return NotDone() if now == change.before else Unknown()

    def _is_repeatable(self, arguments: dict[str, Any]) -> bool:
        try:
            words = tuple(self._commands.permitted(arguments["argv"]))
        except Refusal:
            return True  # it doesn't run at all
        return words in self._exact or any(words[: len(p)] == p for p in self._prefixes)

    # -- refusals --------------------------------------------------------------------------------

    def _tool(
        self, function: Callable[..., Any], name: str, effect: Effect, **options: Any
    ) -> Tool[..., str]:
        return Tool(
            answering(function, name, self._on_refusal), effect=effect, name=name, **options
        )


class _Planned(NamedTuple):
    """What is to become of a file."""

    path: str
    before: Content | None
    after: bytes

    @property
    def change(self) -> Change:
        return Change(_digest(self.before), hashlib.sha256(self.after).digest())


_Plan = Callable[[dict[str, Any]], _Planned]


def _digest(content: Content | None) -> bytes | None:
    return None if content is None else hashlib.sha256(content.data).digest()


def answering(
    function: Callable[..., Any], name: str, on_refusal: OnRefusal | None
) -> Callable[..., Any]:
    """Return a function whose refusals are its answers, as text."""

    def told(refusal: Refusal) -> str:
        if on_refusal is not None and not isinstance(refusal, Miss):
            on_refusal(name, str(refusal))
        return str(refusal)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> object:
        try:
            answer = function(*args, **kwargs)
        except Refusal as refusal:
            return told(refusal)
        return answer

    @functools.wraps(function)
    async def call_async(*args: Any, **kwargs: Any) -> object:
        try:
            return await function(*args, **kwargs)
        except Refusal as refusal:
            return told(refusal)

    told_as = call_async if is_async(function) else call
    told_as.__name__ = told_as.__qualname__ = name  # what a model calls it
    return told_as


def _encoded(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise Refusal("the text contains halves of characters, which no file can hold.") from None
    if len(data) > WRITE:
        raise Refusal(f"{len(data)} bytes are too many; {WRITE} can be written at once.")
    return data


def _replaced(data: bytes, old: bytes, new: bytes, path: str) -> bytes:
    if not old or old == new:
        raise Miss("there is nothing to replace.")
    at = data.find(old)
    if at < 0:
        raise Miss(f"the text isn't in {path!r}. Read the file, and give it exactly as it is.")
    if data.find(old, at + 1) >= 0:
        raise Miss(f"the text is in {path!r} more than once. Give more of what is around it.")
    result = data[:at] + new + data[at + len(old) :]
    if len(result) > READ:
        raise Miss(f"{path!r} would be larger than {READ} bytes.")
    return result


def _changed(path: str, sha256: bytes) -> str:
    return f"{path} has now sha256 {sha256.hex()}."


def _lines_told(lines: list[str], first: int, total: int, *, whole: bool) -> str:
    text = "".join(lines)
    last = first + len(lines) - 1
    notes: list[str] = []
    if len(text) > SHOWN:
        text = text[:SHOWN]
        notes.append(f"\n[cut after {SHOWN} characters]")
    elif last < total:
        notes.append(f"\n[lines {first} to {last} of {total}]")
    if not whole:
        notes.append("\n[some bytes are not UTF-8 and are not shown]")
    return text + "".join(notes)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)
