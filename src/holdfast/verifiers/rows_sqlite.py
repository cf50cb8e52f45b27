"""Rows in a SQLite file."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from holdfast import processes
from holdfast.errors import EvidencePathError
from holdfast.evidence import Evidence, Verdict
from holdfast.evidence.inputs import relative_path
from holdfast.verifiers.rows import SECONDS, judge, known_columns, unknown_table
from holdfast.verifiers.site import Site, could_not_tell, failed
from holdfast.verifiers.sqlite_reader import from_bytes, to_bytes

_READER = Path(__file__).with_name("sqlite_reader.py")
_BUSY_MS = 2000
_STARTING = 5.0
_MOST = 64 * 1024 * 1024


def check_sqlite_row(evidence: Evidence, site: Site) -> Verdict:
    """Check a row in a SQLite file, opened read-only unless a dead writer left it half written.

    In a process of its own, so that no transaction of this one comes to harm: see `sqlite_reader`.
    """
    params = evidence.params
    where: dict[str, Any] = params["where"]
    values: dict[str, Any] = params["values"]
    columns = list(dict.fromkeys([*where, *values]))
    try:
        path, links = _locate(params["url"], site)
    except (FileNotFoundError, NotADirectoryError):
        return failed("the database file doesn't exist")
    asked = {"path": path, "links": links, "busy_ms": _BUSY_MS, "seconds": SECONDS}
    asked |= {"table": params["table"], "columns": columns, "where": where}
    try:
        ended = _read(asked, site)
    except OSError as error:
        return could_not_tell(f"the program that reads it could not be started: {error.strerror}")
    if ended.exit_code is None:
        return could_not_tell(f"no answer within {SECONDS:g} s")
    try:
        answer = json.loads(ended.output, object_hook=to_bytes)
    except ValueError:
        return could_not_tell(f"the program that reads it said: {ended.text[-200:]}")
    if "error" in answer:
        return could_not_tell(answer["error"])
    if answer["columns"] is None:
        raise unknown_table(params["table"])
    known_columns(columns, answer["columns"], params["table"])
    rows = [dict(zip(columns, row, strict=True)) for row in answer["rows"]]
    return judge(rows, values, lambda column: rows[0][column] == values[column])


def _read(asked: dict[str, Any], site: Site) -> processes.Finished:
    with tempfile.TemporaryFile() as question:
        question.write(json.dumps(asked, default=from_bytes).encode())
        question.seek(0)
        return processes.run(
            [sys.executable, "-P", str(_READER)],
            cwd=os.path.dirname(asked["path"]),  # noqa: PTH120  a string
            # It imports what this process could.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            limits=processes.Limits(timeout=SECONDS + _STARTING, output_cap=_MOST),
            clock=site.clock,
            stopped=site.stopped,
            stdin=question.fileno(),
        )


def _locate(url: str, site: Site) -> tuple[str, bool]:
    """Return the path to open, and whether links may lead there."""
    name = url.removeprefix("sqlite:///")
    if name.startswith("/"):
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise EvidencePathError(f"{name!r} is no regular file. Nothing was read.", path=name)
        return name, True
    inside = relative_path(name)
    site.beneath.stat_file(inside)
    # SQLite opens by name. With its NOFOLLOW it refuses a link that appears after the look.
    root = os.path.realpath(site.beneath.root)
    return f"{root}/{inside}", False
