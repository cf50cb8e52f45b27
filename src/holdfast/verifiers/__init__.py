"""Does the evidence hold? One kind of check a file; `EvidenceVerifier` runs them in parallel."""

from holdfast.verifiers.verifier import EvidenceVerifier

__all__ = ["EvidenceVerifier"]
