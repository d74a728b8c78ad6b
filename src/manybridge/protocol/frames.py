"""Frames: a 4-byte big-endian length and that many bytes.

This is Erlang's `{packet, 4}` (https://www.erlang.org/doc/apps/erts/erlang.html#open_port/2), so that an Elixir port
needs no code to read us.

The module knows nothing about what is inside a frame.
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

_HEADER: Final = struct.Struct(">I")
_unpack_header: Final = _HEADER.unpack_from

pack_header: Final = _HEADER.pack
"""The header for a body of so many bytes, where the length was checked against a limit already."""


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

    Every byte is copied once at most. A frame that lies whole in a chunk is a slice of it; a longer one grows in a
    `bytearray`, which is handed out itself. So a frame is `bytes` or `bytearray`; both compare and decode alike.
    """

    __slots__ = ("_body", "_header", "_max_frame_bytes", "_missing")

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._header = b""  # of a header that is not complete: 0 to 3 bytes
        self._body: bytearray | None = None  # of the frame that is not complete; None where it is being skipped
        self._missing = 0  # how many bytes that frame still lacks; 0 between frames

    def receive_data(self, data: bytes) -> list[bytes | bytearray | OversizedFrame]:
        """Take the next bytes of the stream and return the frames that they complete, in order."""
        frames: list[bytes | bytearray | OversizedFrame] = []
        if self._missing:
            data = self._continue_frame(data, frames)
            if not data:
                return frames
        if self._header:
            data = self._header + data
            self._header = b""
        position, end, longest = 0, len(data), self._max_frame_bytes
        while end - position >= HEADER_BYTES:
            (length,) = _unpack_header(data, position)
            position += HEADER_BYTES
            if length > longest:
                frames.append(OversizedFrame(length))
            elif position + length <= end:
                frames.append(data[position : position + length])
            else:
                self._body = bytearray(memoryview(data)[position:])
            position += length
        if position > end:
            self._missing = position - end
        elif position < end:
            self._header = data[position:]
        return frames

    def receive_eof(self) -> int:
        """The stream ended. Return how many bytes of an incomplete frame were lost; 0 after a clean end.

        Of an oversized frame only the header counts: its body was lost before.
        """
        lost = len(self._header)
        if self._missing:
            lost = HEADER_BYTES + self.buffered_bytes
        self._header, self._body, self._missing = b"", None, 0
        return lost

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the rest of their frame, in memory."""
        return len(self._header) + (0 if self._body is None else len(self._body))

    def _continue_frame(self, data: bytes, frames: list[bytes | bytearray | OversizedFrame]) -> bytes:
        """Give the frame that is not complete what it lacks; return the rest of `data`."""
        taken, rest = data, b""
        if len(data) > self._missing:
            taken, rest = data[: self._missing], data[self._missing :]
        self._missing -= len(taken)
        if self._body is not None:
            self._body += taken
            if not self._missing:
                frames.append(self._body)
                self._body = None
        return rest
