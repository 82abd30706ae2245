"""The choice of kernels: by the environment first, then by what is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconstruct.kernels import gram_processor, pick_reference, replay_reference
from reconstruct.kernels.select import IMPLEMENTATIONS, select


@pytest.fixture(autouse=True)
def _no_forcing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONSTRUCT_KERNELS", raising=False)


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconstruct.kernels.select._what_triton_lacks", lambda: "no NVIDIA GPU")


def test_the_processor_is_chosen_without_a_gpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    kernels = select()
    assert kernels.name == "processor"
    assert kernels.gram is gram_processor.gram
    assert kernels.reason == "no NVIDIA GPU"


def test_a_gpu_is_chosen_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr("reconstruct.kernels.select._what_triton_lacks", lambda: "")
    kernels = select()
    assert (kernels.name, kernels.reason) == ("triton", "a GPU is at hand")


def test_triton_without_a_gpu_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"the triton kernels cannot run here \(asked for\): no NVIDIA GPU"):
        select("triton")


def test_no_gpu_is_found_without_importing_torch() -> None:
    program = "import sys; from reconstruct.kernels.select import select; select(); print('torch' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k not in {"RECONSTRUCT_KERNELS", "TRITON_INTERPRET"}}
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("a GPU is here")
    command = [sys.executable, "-c", program]
    assert (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == "False"
    )


def test_an_implementation_can_be_asked_for() -> None:
    kernels = select("reference")
    assert (kernels.name, kernels.reason) == ("reference", "asked for")
    assert kernels.pick is pick_reference.pick
    assert kernels.replay is replay_reference.replay


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_environment_goes_before_what_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "triton":
        pytest.importorskip("triton")
        monkeypatch.setattr("reconstruct.kernels.select._what_triton_lacks", lambda: "")
    monkeypatch.setenv("RECONSTRUCT_KERNELS", name)
    other = next(candidate for candidate in IMPLEMENTATIONS if candidate != name)
    for wanted in ("auto", other):
        kernels = select(wanted)
        assert (kernels.name, kernels.reason) == (name, "RECONSTRUCT_KERNELS")


def test_an_empty_environment_variable_forces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    monkeypatch.setenv("RECONSTRUCT_KERNELS", "")
    assert select().name == "processor"


def test_a_wrong_name_lists_what_exists_and_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"no kernels called 'cuda' \(asked for\); there are triton, processor, reference"
    ):
        select("cuda")
    monkeypatch.setenv("RECONSTRUCT_KERNELS", "fastest")
    with pytest.raises(ValueError, match=r"no kernels called 'fastest' \(RECONSTRUCT_KERNELS\); there are triton"):
        select()
