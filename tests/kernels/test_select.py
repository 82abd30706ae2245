"""The choice of kernels: by the environment first, then by what is asked for."""

from __future__ import annotations

import pytest

from reconstruct.kernels import gram_processor, pick_reference, replay_reference
from reconstruct.kernels.select import IMPLEMENTATIONS, select


@pytest.fixture(autouse=True)
def _no_forcing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONSTRUCT_KERNELS", raising=False)


def test_the_fused_kernels_are_chosen_by_default_and_say_why() -> None:
    kernels = select()
    assert kernels.name == "processor"
    assert kernels.gram is gram_processor.gram
    assert "only fused implementation" in kernels.reason


def test_an_implementation_can_be_asked_for() -> None:
    kernels = select("reference")
    assert (kernels.name, kernels.reason) == ("reference", "asked for")
    assert kernels.pick is pick_reference.pick
    assert kernels.replay is replay_reference.replay


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_environment_goes_before_what_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONSTRUCT_KERNELS", name)
    other = next(candidate for candidate in IMPLEMENTATIONS if candidate != name)
    for wanted in ("auto", other):
        kernels = select(wanted)
        assert (kernels.name, kernels.reason) == (name, "RECONSTRUCT_KERNELS")


def test_an_empty_environment_variable_forces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONSTRUCT_KERNELS", "")
    assert select().name == "processor"


def test_a_wrong_name_lists_what_exists_and_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no kernels called 'cuda' \(asked for\); there are processor, reference"):
        select("cuda")
    monkeypatch.setenv("RECONSTRUCT_KERNELS", "fastest")
    with pytest.raises(ValueError, match=r"no kernels called 'fastest' \(RECONSTRUCT_KERNELS\); there are processor"):
        select()
