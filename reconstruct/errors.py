"""Every error a user can cause, each with the thing at fault and the remedy.

ReconstructError                exit code 2: bad input or configuration
├── ConfigurationError          an option that does not exist or contradicts another
├── CheckpointError             a file or folder that is no readable checkpoint
│   ├── HeaderError             a safetensors header that breaks a rule of the format
│   └── RemoteError             a repository or object store that does not give what is asked of it
│       └── UnreachableError    the same, but it may do so later
├── BudgetExhausted             a read that would exceed the bytes that may be transferred
├── AlignmentError              checkpoints that have nothing in common to compare
├── NonFiniteError              NaN or infinite weights where numbers are needed
├── StoreError                  a run folder that is missing, foreign or of another version
└── IncompleteRunError          exit code 3: some units failed; the store says which
"""

from __future__ import annotations

__all__ = [
    "AlignmentError",
    "BudgetExhausted",
    "CheckpointError",
    "ConfigurationError",
    "HeaderError",
    "IncompleteRunError",
    "NonFiniteError",
    "ReconstructError",
    "RemoteError",
    "StoreError",
    "UnreachableError",
]


class ReconstructError(Exception):
    """Base of all errors that end a run with one message and no traceback.

    `subject` names the file, tensor or option at fault; `remedy` says what to do about it.
    """

    exit_code = 2

    def __init__(self, message: str, *, subject: str | None = None, remedy: str | None = None) -> None:
        self.message, self.subject, self.remedy = message, subject, remedy
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.subject}: {self.message}" if self.subject else self.message
        return f"{text}. {self.remedy}" if self.remedy else text


class ConfigurationError(ReconstructError):
    """An option that does not exist, has the wrong type or contradicts another."""


class CheckpointError(ReconstructError):
    """A file or folder that is no readable checkpoint."""


class HeaderError(CheckpointError):
    """A safetensors header that breaks a rule of the format."""


class RemoteError(CheckpointError):
    """A repository or object store that does not give what is asked of it."""


class UnreachableError(RemoteError):
    """A server that did not answer properly, however often it was asked: it may do so later."""


class BudgetExhausted(ReconstructError):  # noqa: N818  (the event's name, as a reader of budgets knows it)
    """A read that was not sent, as it would exceed the bytes that may be transferred.

    `needed`: bytes of that read; `left`: bytes that may still be transferred.
    """

    def __init__(self, needed: int, left: int, cap: int) -> None:
        self.needed, self.left = needed, left
        super().__init__(
            f"a read of {needed:,} bytes would exceed the budget of {cap:,}, of which {left:,} are left",
            remedy="Allow more bytes",
        )


class AlignmentError(ReconstructError):
    """Checkpoints that have nothing in common to compare."""


class NonFiniteError(ReconstructError):
    """NaN or infinite weights where numbers are needed."""


class StoreError(ReconstructError):
    """A run folder that is missing, foreign or was written by another version."""


class IncompleteRunError(ReconstructError):
    """Some units failed; what was finished is in the run store."""

    exit_code = 3
