"""A short coverage-guided fuzz of each decoder, and that the fuzzer finds what is there to be found."""

from __future__ import annotations

import random

import pytest
from fuzz_decoders import Target, fuzz, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_no_input_makes_a_decoder_fail_or_hang(target: Target) -> None:
    seed = random.randrange(1 << 32)
    assert not fuzz(target, 0.6, seed, runs_min=200), f"seed {seed}"
    assert len(target.corpus) > 5, "nothing new was reached"


def test_the_fuzzer_finds_a_defect() -> None:
    def brittle(data: bytes) -> None:
        if b"<" in data:
            raise ValueError("found")

    assert "ValueError: found" in fuzz(Target("brittle", brittle, [b"x"]), 5, 1)
