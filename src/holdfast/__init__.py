"""Holdfast runs AI-agent tasks to the end."""

from importlib import import_module
from typing import TYPE_CHECKING

from holdfast.approvals import Approval
from holdfast.checkpoints import CheckpointManager
from holdfast.clock import Clock, SystemClock
from holdfast.context import Context
from holdfast.evidence import Evidence, EvidencePack, Verdict, VerdictStatus
from holdfast.handlers import Handler
from holdfast.leases import LeaseManager
from holdfast.llm_cache import LLMOutputCache, Reuse
from holdfast.models import Budget, Checkpoint, ItemPolicy, RetryPolicy, Task, WorkItem
from holdfast.registry import register_type
from holdfast.runner import TaskRunner
from holdfast.secret import Secret
from holdfast.states import CheckpointType, Effect, ItemStatus, TaskStatus
from holdfast.store import Store, open_store
from holdfast.submitting import TaskHandle
from holdfast.sweep import RecoverySweep, Retention
from holdfast.sync_context import SyncContext
from holdfast.tool import Done, NotDone, Tool, Unknown, idempotency_key, tool
from holdfast.tool_ledger import ToolLedger
from holdfast.usage import Usage
from holdfast.verifiers import EvidenceVerifier
from holdfast.version import VERSION as __version__  # noqa: N811  the name Python expects
from holdfast.worker import Worker
from holdfast.workspace import Workspace

if TYPE_CHECKING:
    from holdfast.agents.modes import Mode
    from holdfast.agents.pipeline import ModePipelineRunner
    from holdfast.agents.selector import ModeSelector

_LATER = {
    "Mode": "holdfast.agents.modes",
    "ModePipelineRunner": "holdfast.agents.pipeline",
    "ModeSelector": "holdfast.agents.selector",
}
"""What is imported when it is first asked for, so that a program without agents needn't wait."""


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


__all__ = [
    "Approval",
    "Budget",
    "Checkpoint",
    "CheckpointManager",
    "CheckpointType",
    "Clock",
    "Context",
    "Done",
    "Effect",
    "Evidence",
    "EvidencePack",
    "EvidenceVerifier",
    "Handler",
    "ItemPolicy",
    "ItemStatus",
    "LLMOutputCache",
    "LeaseManager",
    "Mode",
    "ModePipelineRunner",
    "ModeSelector",
    "NotDone",
    "RecoverySweep",
    "Retention",
    "RetryPolicy",
    "Reuse",
    "Secret",
    "Store",
    "SyncContext",
    "SystemClock",
    "Task",
    "TaskHandle",
    "TaskRunner",
    "TaskStatus",
    "Tool",
    "ToolLedger",
    "Unknown",
    "Usage",
    "Verdict",
    "VerdictStatus",
    "WorkItem",
    "Worker",
    "Workspace",
    "__version__",
    "idempotency_key",
    "open_store",
    "register_type",
    "tool",
]
