"""Every error a user can cause, each with the thing at fault and the remedy.

ReconstructError                exit code 2: bad input or configuration
├── ConfigurationError          an option that does not exist or contradicts another
├── CheckpointError             a file or folder that is no readable checkpoint
│   └── HeaderError             a safetensors header that breaks a rule of the format
├── AlignmentError              checkpoints that have nothing in common to compare
├── NonFiniteError              NaN or infinite weights where numbers are needed
├── StoreError                  a run folder that is missing, foreign or of another version
└── IncompleteRunError          exit code 3: some units failed; the store says which
"""

from __future__ import annotations

__all__ = [
    "AlignmentError",
    "CheckpointError",
    "ConfigurationError",
    "HeaderError",
    "IncompleteRunError",
    "NonFiniteError",
    "ReconstructError",
    "StoreError",
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


class AlignmentError(ReconstructError):
    """Checkpoints that have nothing in common to compare."""


class NonFiniteError(ReconstructError):
    """NaN or infinite weights where numbers are needed."""


class StoreError(ReconstructError):
    """A run folder that is missing, foreign or was written by another version."""


class IncompleteRunError(ReconstructError):
    """Some units failed; what was finished is in the run store."""

    exit_code = 3
