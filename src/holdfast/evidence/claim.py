"""Evidence: one claim about one subject in the world."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import msgspec

from holdfast.errors import EvidenceInputError
from holdfast.evidence.inputs import (
    command_words,
    database_subject,
    environment,
    http_address,
    key_text,
    plain,
    plain_text,
    relative_path,
    scalars,
    seconds,
    whole_number,
)

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_KINDS_IN_A_WORKSPACE = frozenset({"file", "file_hash", "command", "git_commit"})


class WorkspaceRef(msgspec.Struct, frozen=True):
    """A workspace as one machine sees it: the id that travels, and where it is here.

    Args:
        id: the workspace's own id, the same on every machine that has it.
        root: absolute path of its root directory on this machine.
    """

    id: str
    root: str


class Evidence(msgspec.Struct, frozen=True):
    """One claim about one subject in the world.

    Use the constructors (`file`, `file_hash`, `command`, `db_row`, `git_commit`, `http`,
    `custom`): they refuse what can't be checked safely. A later claim on the same `subject`
    replaces an earlier one.

    Args:
        kind: which check decides about it.
        subject: canonical name of the thing in the world; carries no password.
        params: what the check needs, as plain data.
        workspace: id of the workspace it was made in; None where it isn't bound to one.
        recheck: whether it may be checked again. If not, its first verdict stands as historic.
    """

    kind: str
    subject: str
    params: dict[str, Any]
    workspace: str | None = None
    recheck: bool = True

    def __repr__(self) -> str:
        """Name the claim without its parameters, which may hold passwords."""
        return f"<Evidence {self.subject}>"

    @classmethod
    def file(cls, path: str | os.PathLike[str]) -> Self:
        """Claim that a regular file exists.

        Its SHA-256 is captured when it is first checked; from then on it must stay the same.

        Args:
            path: the file, relative to the workspace.

        Raises:
            EvidencePathError: the path is absolute, empty, or contains `..`.
        """
        where = relative_path(path)
        return cls("file", f"file:{where}", {"path": where})

    @classmethod
    def file_hash(cls, path: str | os.PathLike[str], sha256: str) -> Self:
        """Claim that a regular file has exactly this content.

        Args:
            path: the file, relative to the workspace.
            sha256: 64 hexadecimal digits.

        Raises:
            EvidencePathError: the path is absolute, empty, or contains `..`.
            EvidenceInputError: the hash is no SHA-256.
        """
        where = relative_path(path)
        if not _SHA256.fullmatch(sha256):
            raise EvidenceInputError(
                f"A SHA-256 is 64 hexadecimal digits; {sha256!r} is not. Correct the hash."
            )
        return cls("file_hash", f"file:{where}", {"path": where, "sha256": sha256.lower()})

    @classmethod
    def command(
        cls,
        argv: Sequence[str],
        exit_code: int = 0,
        *,
        cwd: str | os.PathLike[str] = ".",
        timeout: float = 60.0,
        output_cap: int = 64 * 1024,
        env: Mapping[str, str] | None = None,
        recheck: bool = False,
    ) -> Self:
        """Claim that a command ends with this exit code. No shell is involved.

        It runs with PATH, HOME, LANG, LC_ALL and TMPDIR of this process and nothing else of its
        environment. It is run once, and its verdict stands, unless `recheck` says that running
        it again is harmless.

        Args:
            argv: the program and its arguments, one string each.
            exit_code: what the command must exit with.
            cwd: working directory, relative to the workspace.
            timeout: seconds it may take; then its whole process group is killed.
            output_cap: bytes of output to keep, counted from its end.
            env: variables it gets in addition. They are stored with the claim: no secrets here.
            recheck: whether it may be run again to check the claim again.

        Raises:
            EvidencePathError: `cwd` is absolute or contains `..`.
            EvidenceInputError: `argv` isn't a list of strings, or a limit makes no sense.
        """
        words = command_words(argv)
        where = relative_path(cwd, allow_root=True)
        params = {
            "argv": words,
            "exit_code": whole_number(exit_code, "exit_code", least=-64),
            "cwd": where,
            "timeout": seconds(timeout),
            "output_cap": whole_number(output_cap, "output_cap", least=0),
            "env": environment(env or {}),
        }
        listed = json.dumps(words, ensure_ascii=False, separators=(",", ":"))
        return cls("command", f"command:{listed}@{where}", params, recheck=recheck)

    @classmethod
    def db_row(
        cls, url: str, table: str, where: Mapping[str, Any], values: Mapping[str, Any]
    ) -> Self:
        """Claim that exactly one row matches `where`, and that it has these values.

        The URL is stored with the claim. Leave the password out of it and let PostgreSQL's own
        means supply it (a password file, a service, PGPASSWORD).

        Args:
            url: `sqlite:///relative.db` (below the workspace), `sqlite:////absolute.db` or
                `postgresql://…`.
            table: the table's name, for PostgreSQL optionally `schema.table`.
            where: column to value; together they name one row.
            values: column to value that the row must have; may be empty.

        Raises:
            EvidencePathError: a relative database path leaves the workspace.
            EvidenceInputError: the URL or a value isn't of a kind that can be compared.
        """
        if not table or not where:
            raise EvidenceInputError(
                "A row claim needs a table and at least one column in `where` to name a row."
            )
        database = database_subject(url)
        named = scalars(where, "where")
        params = {
            "url": url,
            "table": table,
            "where": named,
            "values": scalars(values, "values"),
        }
        row = "&".join(f"{quote(k)}={key_text(v)}" for k, v in sorted(named.items()))
        return cls("db_row", f"row:{database}#{table}?{row}", params)

    @classmethod
    def git_commit(cls, rev: str, repo: str | os.PathLike[str] = ".") -> Self:
        """Claim that a revision names a commit.

        The commit's id is captured when it is first checked. From then on that commit must still
        be there and must not have been thrown away: the revision, or HEAD, must contain it.

        Args:
            rev: anything that `git rev-parse` understands.
            repo: directory of the repository, relative to the workspace.

        Raises:
            EvidencePathError: `repo` is absolute or contains `..`.
            EvidenceInputError: `rev` is empty or would be read as an option.
        """
        where = relative_path(repo, allow_root=True)
        if not rev or rev.startswith("-") or not rev.isprintable():
            raise EvidenceInputError(
                f"{rev!r} is no git revision. Name a branch, a tag or a commit id."
            )
        return cls("git_commit", f"git:{where}", {"rev": plain_text(rev, "rev"), "repo": where})

    @classmethod
    def http(cls, url: str, status: int = 200, *, timeout: float = 10.0) -> Self:
        """Claim that a GET request is answered with this status.

        Args:
            url: an `http` or `https` address. It is stored with the claim: no secrets here.
            status: the HTTP status expected.
            timeout: seconds the whole exchange may take.

        Raises:
            EvidenceInputError: another scheme, no host, credentials in the URL, or text that
                is not percent-encoded.
        """
        address = http_address(url)
        params = {
            "url": address,
            "status": whole_number(status, "status", least=100),
            "timeout": seconds(timeout),
        }
        return cls("http", f"http:{address}", params)

    @classmethod
    def custom(cls, name: str, subject: str, /, **params: Any) -> Self:
        """Claim something that a verifier registered under `name` can check.

        Args:
            name: the name given to `EvidenceVerifier.register`.
            subject: canonical name of the thing the claim is about.
            params: plain data handed to the verifier, together with `subject`.

        Raises:
            EvidenceInputError: a name is empty, or a parameter isn't plain data.
        """
        if not name or not subject or "subject" in params:
            raise EvidenceInputError(
                "A custom claim needs a name and a subject, and no parameter named `subject`."
            )
        given = {key: plain(value, key) for key, value in params.items()}
        bundle = {"name": name, "subject": subject, "params": given}
        return cls("custom", f"custom:{name}:{subject}", bundle)

    @property
    def in_workspace(self) -> bool:
        """Whether the claim can only be checked where its workspace is."""
        if self.kind == "db_row":
            url = str(self.params.get("url", ""))
            return url.startswith("sqlite:///") and not url.startswith("sqlite:////")
        return self.kind in _KINDS_IN_A_WORKSPACE

    def bound_to(self, workspace: WorkspaceRef) -> Self:
        """Return the claim naming its workspace, if it is one that needs a workspace."""
        if self.workspace is not None or not self.in_workspace:
            return self
        return msgspec.structs.replace(self, workspace=workspace.id)
