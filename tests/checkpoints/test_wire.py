"""What is transferred is counted, and a cap holds before anything is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import BudgetExhausted, ReconstructError


def test_bytes_and_requests_are_counted_as_they_arrive() -> None:
    seen: list[tuple[int, int]] = []
    wire = Wire(watch=lambda count, requests: seen.append((count, requests)))
    with wire.request(10) as transfer:
        transfer.receive(4)
        transfer.receive(6)
    with wire.request(5):
        pass
    assert (wire.bytes, wire.requests, wire.left) == (10, 2, None)
    assert seen == [(4, 1), (10, 1)]


def test_a_request_beyond_the_cap_is_refused_before_it_is_sent() -> None:
    wire = Wire(cap=100)
    with wire.request(60) as transfer:
        assert wire.left == 40
        with pytest.raises(BudgetExhausted, match=r"a read of 41 bytes would exceed the budget of 100, of which 40"):
            wire.request(41).__enter__()
        transfer.receive(10)
    assert (wire.bytes, wire.requests, wire.left) == (10, 1, 90)
    with pytest.raises(BudgetExhausted) as caught:
        wire.request(91).__enter__()
    assert (caught.value.needed, caught.value.left) == (91, 90)
    assert isinstance(caught.value, ReconstructError)


def test_what_a_longer_answer_needs_is_reserved_before_it_is_read() -> None:
    wire = Wire(cap=100)
    with wire.request(50) as transfer:
        transfer.receive(50)
        assert transfer.room == 50
        transfer.expect(80)
        with pytest.raises(BudgetExhausted):
            transfer.expect(101)
        transfer.receive(30)
    assert (wire.bytes, wire.left) == (80, 20)


def test_bytes_that_nobody_expected_count_too() -> None:
    wire = Wire(cap=100)
    with wire.request(10) as transfer:
        transfer.receive(25)
    assert (wire.bytes, wire.left) == (25, 75)


def test_many_threads_never_pass_the_cap_together() -> None:
    wire = Wire(cap=1000)

    def read(_: int) -> int:
        try:
            with wire.request(7) as transfer:
                transfer.receive(7)
        except BudgetExhausted:
            return 0
        return 7

    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(read, range(500)))
    assert total == wire.bytes == 1000 // 7 * 7
    assert wire.requests == 1000 // 7
