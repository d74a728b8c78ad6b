"""Frames: a 4-byte big-endian length and that many bytes.

This is Erlang's `{packet, 4}` (https://www.erlang.org/doc/apps/erts/erlang.html#open_port/2), so that an Elixir port
needs no code to read us. The module knows nothing about what is inside a frame.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER_BYTES: Final = 4

DEFAULT_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""64 MiB: six times the largest payload that we benchmark, and small enough that eight concurrent frames of hostile
size can't exhaust a 1 GiB container."""

ABSOLUTE_MAX_FRAME_BYTES: Final = 2**32 - 1
"""What the length field can say."""

_HEADER = struct.Struct(">I")


class OversizedFrame(NamedTuple):
    """Stands in the decoder's output for a frame over the limit. Its body is skipped as it arrives."""

    length: int
    """The length that the header announced, in bytes."""


def encode_frame(payload: bytes) -> bytes:
    """Return `payload` with its header.

    Raises:
        ValueError: the payload does not fit into the length field.
    """
    if len(payload) > ABSOLUTE_MAX_FRAME_BYTES:
        raise ValueError(f"a frame holds at most {ABSOLUTE_MAX_FRAME_BYTES} bytes, this payload has {len(payload)}")
    return _HEADER.pack(len(payload)) + payload


class FrameDecoder:
    """Cuts a byte stream into frames. Owns the bytes of the frame that is not complete yet.

    Never raises on input: whatever the bytes are, they are frames, oversized frames, or the beginning of one. Memory
    is bounded by `max_frame_bytes` plus one chunk, since the body of an oversized frame is dropped while it arrives.
    """

    __slots__ = ("_buffer", "_max_frame_bytes", "_skip")

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._skip = 0

    def receive_data(self, data: bytes) -> list[bytes | OversizedFrame]:
        """Take the next bytes of the stream and return the frames that they complete, in order."""
        if self._skip:
            data = self._skip_oversized(data)
        frames: list[bytes | OversizedFrame] = []
        buffer = self._buffer
        if buffer:
            buffer += data
            position = self._cut(buffer, frames)
            del buffer[:position]
        else:
            # The common case, a chunk that begins with a header, is cut without copying it into the buffer first.
            position = self._cut(data, frames)
            if position < len(data):
                buffer += memoryview(data)[position:]
        return frames

    def receive_eof(self) -> int:
        """The stream ended. Return how many bytes of an incomplete frame were lost (0 after a clean end)."""
        lost = len(self._buffer) + (1 if self._skip else 0)
        self._buffer.clear()
        self._skip = 0
        return lost

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer)

    def _cut(self, data: bytes | bytearray, frames: list[bytes | OversizedFrame]) -> int:
        position, end = 0, len(data)
        while end - position >= HEADER_BYTES:
            (length,) = _HEADER.unpack_from(data, position)
            body = position + HEADER_BYTES
            if length > self._max_frame_bytes:
                frames.append(OversizedFrame(length))
                available = end - body
                if available < length:
                    self._skip = length - available
                    return end
            elif end - body < length:
                break
            else:
                frames.append(bytes(data[body : body + length]))
            position = body + length
        return position

    def _skip_oversized(self, data: bytes) -> bytes:
        dropped = min(self._skip, len(data))
        self._skip -= dropped
        return data[dropped:]
