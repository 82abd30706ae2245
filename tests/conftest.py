"""Merges of the tiny trained family that many tests examine, made once a session."""

from __future__ import annotations

import os
from pathlib import Path

# Triton decides when it is imported: without a GPU its kernels are interpreted.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from support.cases import merged


@pytest.fixture(scope="session")
def blend_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """.565 ft-code + .435 ft-docs."""
    return merged(tmp_path_factory.mktemp("blend") / "blend", (0.565, 0.435), ("ft-code", "ft-docs"))


@pytest.fixture(scope="session")
def second_blend_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """.3 ft-code + .7 ft-docs."""
    return merged(tmp_path_factory.mktemp("second") / "second", (0.3, 0.7), ("ft-code", "ft-docs"))
