"""Files: it exists, and its content is what it was."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from holdfast.evidence import Evidence, Verdict
from holdfast.verifiers.site import Site, failed, verified

_CHUNK = 1024 * 1024
# A file system may stamp two writes with the same time. A file that changed so shortly before
# it was hashed could have changed again since, with nothing to show for it.
_RACY_NS = 2_000_000_000


def check_file(evidence: Evidence, previous: Verdict | None, site: Site) -> Verdict:
    """Check that the file is there and, if its hash was captured before, that it is unchanged.

    A file whose inode, size, mtime and ctime are as captured is not read again.
    """
    path: str = evidence.params["path"]
    captured = previous.captured if previous else {}
    expected: str | None = evidence.params.get("sha256") or captured.get("sha256")
    try:
        if captured.get("sha256") == expected and _is_unchanged(captured, path, site):
            return verified(f"unchanged, {_short(captured)}", captured)
        found = _hash(path, site)
    except (FileNotFoundError, NotADirectoryError):
        return failed("doesn't exist")
    if found is None:
        return failed("changed while it was being read")
    if expected is not None and found["sha256"] != expected:
        detail = f"sha256 is {found['sha256'][:12]}…, not {expected[:12]}…"
        return failed(detail, {"found_sha256": found["sha256"], "found_size": found["size"]})
    return verified(f"exists, {_short(found)}", found)


def _is_unchanged(captured: dict[str, Any], path: str, site: Site) -> bool:
    hashed_at = captured.get("hashed_at")
    if hashed_at is None:
        return False
    status = site.beneath.stat_file(path)
    touched = max(status.st_mtime_ns, status.st_ctime_ns)
    return _identity(status).items() <= captured.items() and (
        touched < int(hashed_at * 1e9) - _RACY_NS
    )


def _hash(path: str, site: Site) -> dict[str, Any] | None:
    """Return what is to be captured of the file, or None if it changed while it was read."""
    hashed_at = site.clock.now()
    with site.beneath.open_file(path) as fd:
        before = os.fstat(fd)
        digest = hashlib.sha256()
        left = before.st_size
        # Reading one byte more than there should be notices a growing file, and ends in one.
        while left >= 0 and (data := os.read(fd, min(_CHUNK, left + 1))):
            digest.update(data)
            left -= len(data)
        after = os.fstat(fd)
    if left != 0 or _identity(before) != _identity(after):
        return None
    return {"sha256": digest.hexdigest(), **_identity(after), "hashed_at": hashed_at}


def _identity(status: os.stat_result) -> dict[str, int]:
    return {
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def _short(captured: dict[str, Any]) -> str:
    return f"{captured['size']} bytes, sha256 {captured['sha256'][:12]}…"
