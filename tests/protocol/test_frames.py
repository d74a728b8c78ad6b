"""Frames: whatever way a stream of bytes is cut, the same frames come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.protocol.frames import (
    ABSOLUTE_MAX_FRAME_BYTES,
    DEFAULT_MAX_FRAME_BYTES,
    HEADER_BYTES,
    FrameDecoder,
    OversizedFrame,
    encode_frame,
)
from tests.support import cuts, frame

LIMIT = 16
PAYLOADS = [b"", b"a", b"\x00\x00\x00\x01", b"x" * LIMIT, b"\xff" * (LIMIT - 1)]
OVERSIZED = frame(b"y" * (LIMIT + 1))
STREAM = b"".join(map(frame, PAYLOADS)) + OVERSIZED + frame(b"after")
FRAMES = [*PAYLOADS, OversizedFrame(LIMIT + 1), b"after"]


def decode(chunks: list[bytes], limit: int = LIMIT) -> list[bytes | bytearray | OversizedFrame]:
    """Feed the chunks to one decoder; return all that came out."""
    decoder = FrameDecoder(limit)
    frames = [found for chunk in chunks for found in decoder.receive_data(chunk)]
    assert decoder.buffered_bytes == 0
    assert decoder.receive_eof() == 0
    return frames


def test_a_frame_is_its_length_in_four_bytes_and_its_payload() -> None:
    """The header is the length of the payload alone, most significant byte first."""
    assert encode_frame(b"ab") == b"\x00\x00\x00\x02ab"
    assert encode_frame(b"") == b"\x00\x00\x00\x00"
    assert encode_frame(b"z" * 258)[:HEADER_BYTES] == b"\x00\x00\x01\x02"


def test_a_payload_that_the_length_field_cannot_tell_is_refused() -> None:
    """4 GiB and more is an error at the sender, not a wrong length on the wire."""

    class Huge(bytes):
        def __len__(self) -> int:
            return ABSOLUTE_MAX_FRAME_BYTES + 1

    with pytest.raises(ValueError, match=f"at most {ABSOLUTE_MAX_FRAME_BYTES} bytes"):
        encode_frame(Huge())


def test_a_stream_is_cut_into_its_frames_whole() -> None:
    """All frames of one chunk come out, in order."""
    assert decode([STREAM]) == FRAMES


def test_a_stream_is_cut_into_its_frames_byte_by_byte() -> None:
    """One byte at a time is the worst that a pipe may do."""
    assert decode([STREAM[i : i + 1] for i in range(len(STREAM))]) == FRAMES


@pytest.mark.parametrize("position", range(len(STREAM) + 1))
def test_a_stream_may_be_cut_anywhere(position: int) -> None:
    """Inside a header, a body or a skipped body, at their borders, and with an empty chunk."""
    assert decode([STREAM[:position], b"", STREAM[position:]]) == FRAMES


@given(
    st.lists(st.binary(max_size=3 * LIMIT), max_size=12),
    st.lists(st.integers(min_value=0, max_value=400), max_size=12),
)
def test_any_frames_survive_any_cuts(payloads: list[bytes], positions: list[int]) -> None:
    """A payload over the limit gives its length, the others come out unchanged."""
    expected = [OversizedFrame(len(payload)) if len(payload) > LIMIT else payload for payload in payloads]
    assert decode(cuts(b"".join(map(frame, payloads)), positions)) == expected


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_no_bytes_make_the_decoder_raise(chunks: list[bytes]) -> None:
    """Any bytes are frames, oversized frames or the beginning of one, and memory stays within the limit."""
    decoder = FrameDecoder(LIMIT)
    for chunk in chunks:
        assert all(len(found) <= LIMIT for found in decoder.receive_data(chunk) if isinstance(found, bytes | bytearray))
        assert decoder.buffered_bytes <= LIMIT
    decoder.receive_eof()


def test_trailing_bytes_wait_for_the_rest_of_their_frame() -> None:
    """What follows a whole frame is kept, and is counted as buffered."""
    decoder = FrameDecoder()
    assert decoder.receive_data(frame(b"one") + frame(b"two")[:5]) == [b"one"]
    assert decoder.buffered_bytes == 1
    assert decoder.receive_data(frame(b"two")[5:] + b"\x00") == [b"two"]
    assert decoder.buffered_bytes == 1


def test_an_oversized_frame_is_reported_when_its_header_is_there() -> None:
    """The receiver can answer at once and need not wait for a body that it will not read."""
    assert FrameDecoder(LIMIT).receive_data(OVERSIZED[:HEADER_BYTES]) == [OversizedFrame(LIMIT + 1)]


def test_the_body_of_an_oversized_frame_takes_no_memory() -> None:
    """A body of a gigabyte is dropped while it arrives; the frame behind it is read as ever."""
    decoder = FrameDecoder(LIMIT)
    length = 1 << 30
    assert decoder.receive_data(length.to_bytes(HEADER_BYTES, "big")) == [OversizedFrame(length)]
    chunk = bytes(1 << 24)
    for _ in range(length // len(chunk)):
        assert decoder.receive_data(chunk) == []
        assert decoder.buffered_bytes == 0
    assert decoder.receive_data(frame(b"next")) == [b"next"]


def test_a_frame_of_exactly_the_limit_is_no_oversized_frame() -> None:
    """The limit itself is allowed, one byte more is not."""
    assert decode([frame(b"x" * LIMIT), frame(b"x" * (LIMIT + 1))]) == [b"x" * LIMIT, OversizedFrame(LIMIT + 1)]


def test_a_zero_length_frame_is_an_empty_payload() -> None:
    """What an empty frame means is not this module's business."""
    assert decode([frame(b"") * 2, b"\x00\x00", b"\x00\x00"]) == [b"", b"", b""]


def test_frames_do_not_change_after_they_came_out() -> None:
    """The decoder never writes into what it handed out, though it hands out the buffer of a long frame itself."""
    decoder = FrameDecoder()
    stream = frame(b"a" * 100) + frame(b"b" * 100) + frame(b"c" * 100)
    found = [payload for chunk in cuts(stream, range(0, len(stream), 7)) for payload in decoder.receive_data(chunk)]
    decoder.receive_data(frame(b"d" * 300)[:200])
    assert found == [b"a" * 100, b"b" * 100, b"c" * 100]


@pytest.mark.parametrize(
    ("received", "lost"),
    [
        (b"", 0),
        (frame(b"whole"), 0),
        (b"\x00", 1),
        (b"\x00\x00\x00", 3),
        (frame(b"cut off")[:HEADER_BYTES], HEADER_BYTES),
        (frame(b"cut off")[:-1], HEADER_BYTES + 6),
        (frame(b"whole") + frame(b"cut off")[:6], 6),
        (OVERSIZED[:-1], HEADER_BYTES),
        (OVERSIZED, 0),
    ],
)
def test_the_end_of_the_stream_tells_how_many_bytes_were_lost(received: bytes, lost: int) -> None:
    """An incomplete frame counts with its header; the skipped body of an oversized one was lost before."""
    decoder = FrameDecoder(LIMIT)
    decoder.receive_data(received)
    assert decoder.receive_eof() == lost
    assert decoder.receive_eof() == 0
    assert decoder.receive_data(frame(b"fresh")) == [b"fresh"]


def test_the_usual_limit_holds_for_a_decoder_that_was_told_none() -> None:
    """64 MiB pass, one byte more does not."""
    decoder = FrameDecoder()
    assert decoder.receive_data(DEFAULT_MAX_FRAME_BYTES.to_bytes(HEADER_BYTES, "big")) == []
    longer = DEFAULT_MAX_FRAME_BYTES + 1
    assert FrameDecoder().receive_data(longer.to_bytes(HEADER_BYTES, "big")) == [OversizedFrame(longer)]
