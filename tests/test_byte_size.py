"""Sizes as people write them."""

from __future__ import annotations

import pytest

from reconstruct.byte_size import byte_text, parse_bytes
from reconstruct.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "size"),
    [("200MB", 200_000_000), ("1.5 GiB", 3 << 29), ("4096", 4096), (4096, 4096), ("8kb", 8000), ("0.3B", None),
     (" 2 TB ", 2 * 10**12), (None, None)],
)  # fmt: skip
def test_numbers_with_and_without_units(text, size):
    if text == "0.3B":
        with pytest.raises(ConfigurationError, match=r"sampling.bytes: must be at least one byte"):
            parse_bytes(text, "sampling.bytes")
    else:
        assert parse_bytes(text, "sampling.bytes") == size


@pytest.mark.parametrize("text", ["many", "200 MegaBytes", "-5MB", "", "1e6", True, "0"])
def test_what_is_no_size_is_refused_by_the_name_of_its_option(text):
    with pytest.raises(ConfigurationError, match=r"sampling.bytes"):
        parse_bytes(text, "sampling.bytes")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (4180, "4.18 KB"), (28_086_912, "28.1 MB"), (10**13, "10 TB")],
)
def test_sizes_are_written_with_three_digits(size, text):
    assert byte_text(size) == text
