"""Evidence: claims about the world that can be checked, and what checking them gave.

These are values. Building one checks that the claim *can* be checked safely; whether it holds is
for `holdfast.verifiers`. Every value here is plain data and is stored as MessagePack.
"""

from holdfast.evidence.claim import Evidence, WorkspaceRef
from holdfast.evidence.pack import EvidencePack, combine
from holdfast.evidence.verdict import PackVerdict, Verdict, VerdictStatus

__all__ = [
    "Evidence",
    "EvidencePack",
    "PackVerdict",
    "Verdict",
    "VerdictStatus",
    "WorkspaceRef",
    "combine",
]
