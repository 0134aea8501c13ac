"""Cutting a TCP stream into syslog frames, however the bytes are split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from futago.intake.framing import Frame, SyslogFraming

TEXT = st.binary(min_size=1, max_size=40).map(lambda b: b"<13>" + b.replace(b"\n", b" "))
FRAMES = st.lists(st.tuples(TEXT, st.booleans()), max_size=20)


def stream(frames: list[tuple[bytes, bool]]) -> bytes:
    return b"".join(b"%d %b" % (len(data), data) if counted else data + b"\n" for data, counted in frames)


@given(FRAMES, st.data())
def test_mixed_framings_give_the_same_frames_however_the_stream_is_split(
    frames: list[tuple[bytes, bool]], data: st.DataObject
) -> None:
    raw = stream(frames)
    framing, got, at = SyslogFraming(), [], 0
    while at < len(raw):
        step = data.draw(st.integers(1, max(1, len(raw) // 3)))
        got += framing.receive_data(raw[at : at + step])
        at += step
    assert got == [Frame(one) for one, _ in frames]
    assert framing.receive_end() is None


@given(st.lists(st.binary(max_size=300)))
def test_no_input_raises_or_is_held_beyond_the_bound(pieces: list[bytes]) -> None:
    framing = SyslogFraming(frame_bytes_max=64)
    for piece in pieces:
        for frame in framing.receive_data(piece):
            assert 0 < len(frame.data) <= 64
        assert framing.pending_bytes <= 64 + 9
    framing.receive_end()


def test_a_line_that_begins_with_a_date_is_a_line() -> None:
    framing = SyslogFraming()
    assert framing.receive_data(b"2026 was a year\n12 monkeys\n") == [Frame(b"2026 was a year"), Frame(b"12 monkeys")]


def test_a_counted_frame_may_hold_line_feeds() -> None:
    assert SyslogFraming().receive_data(b"8 <1>a\nb\nc5 <1>xy") == [Frame(b"<1>a\nb\nc"), Frame(b"<1>xy")]


def test_frames_that_are_too_long_are_cut_and_the_stream_goes_on() -> None:
    framing = SyslogFraming(frame_bytes_max=10)
    long = b"<1>" + b"x" * 30
    assert framing.receive_data(long + b"\n<1>next\n") == [Frame(long[:10], True), Frame(b"<1>next")]
    assert framing.receive_data(b"33 " + long + b"7 <1>more") == [Frame(long[:10], True), Frame(b"<1>more")]
    got = [f for n in range(33) for f in framing.receive_data(long[n : n + 1])]
    assert got == [Frame(long[:10], True)]
    assert framing.receive_data(b"tail\n<1>a\n") == [Frame(b"<1>a")]


def test_an_unfinished_line_is_a_frame_at_the_end_and_an_unfinished_counted_frame_is_not() -> None:
    framing = SyslogFraming()
    framing.receive_data(b"<1>no line feed")
    assert framing.receive_end() == Frame(b"<1>no line feed")
    framing.receive_data(b"20 <1>short")
    assert framing.receive_end() is None


def test_empty_lines_are_passed_over() -> None:
    assert SyslogFraming().receive_data(b"\n\n<1>a\n\n") == [Frame(b"<1>a")]
