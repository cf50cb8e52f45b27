"""Permissions: what tools may do. They are bound into the tools and checked where those run."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.agents.refusals import Refusal
from holdfast.states import Effect


class AllowedCommand(msgspec.Struct, frozen=True):
    """Commands that may run without a sandbox: how they begin, and what may follow.

    It decides which program starts, and no more: what a program such as a test runner then does is
    up to the code it finds.

    Args:
        words: how the argument list begins.
        options: what may follow of all that begins with `-`, up to a `=`; None: anything at all.
        operands: whether anything else may follow. No operand may lead out of the workspace.
    """

    words: tuple[str, ...]
    options: frozenset[str] | None = frozenset()
    operands: bool = True

    def allows(self, argv: Sequence[str]) -> bool:
        """Say whether a command is one of these."""
        if tuple(argv[: len(self.words)]) != self.words:
            return False
        if self.options is None:
            return True
        rest = list(argv[len(self.words) :])
        end = rest.index("--") if "--" in rest else len(rest)
        options = [word for word in rest[:end] if word.startswith("-")]
        operands = [word for word in rest[:end] if not word.startswith("-")] + rest[end + 1 :]
        return all(word.partition("=")[0] in self.options for word in options) and (
            not operands or (self.operands and not any(map(_leads_out, operands)))
        )


def _leads_out(word: str) -> bool:
    return word.startswith("/") or ".." in word.split("/")


class Permissions(msgspec.Struct, frozen=True):
    """What tools may do; reading the workspace always is.

    Args:
        change_files: whether files may be written and edited.
        run_commands: whether commands may be run.
        commands: those that may where there is no sandbox; in a sandbox any may.
        network: whether commands in a sandbox have the network.
        effects: the effect classes that tools of your own may have.
    """

    change_files: bool = False
    run_commands: bool = False
    commands: tuple[AllowedCommand, ...] = ()
    network: bool = False
    effects: frozenset[Effect] = frozenset({Effect.READ})

    def require_change(self, mode: str) -> None:
        """Let files be changed.

        Raises:
            Refusal: they may not.
        """
        if not self.change_files:
            raise Refusal(f"{mode} may not change files.")

    def require_command(self, argv: Sequence[str], mode: str, *, sandboxed: bool) -> None:
        """Let a command run.

        Raises:
            Refusal: it may not.
        """
        if not self.run_commands:
            raise Refusal(f"{mode} may not run commands.")
        if sandboxed or any(command.allows(argv) for command in self.commands):
            return
        known = ", ".join(" ".join(command.words) for command in self.commands) or "none"
        raise Refusal(
            f"{argv[0]!a} with these arguments is not among the commands that {mode} may run "
            f"without a sandbox. Those are: {known}."
        )

    def require_effect(self, effect: Effect, tool: str, mode: str) -> None:
        """Let a tool run that isn't one of the workspace's.

        Raises:
            Refusal: it may not.
        """
        if effect not in self.effects:
            raise Refusal(f"{mode} may not use {tool}, whose effect is {effect.value!r}.")
