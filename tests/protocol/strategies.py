"""What Hypothesis makes for the tests of the protocol: JSON values, messages, near misses and garbage."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from manybridge.protocol.messages import (
    EVENT_KINDS,
    MAX_DEADLINE_MS,
    ErrorInfo,
    ErrorReply,
    Event,
    MessageId,
    Reply,
    Request,
)
from tests.support import frame, frame_message

texts = st.text(max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | finite | texts
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
json_objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(texts, json_values, max_size=4)
ids: st.SearchStrategy[MessageId] = st.integers(min_value=0) | texts | finite
optional_texts = st.none() | texts

plain_requests = st.tuples(ids, st.text(min_size=1, max_size=20), json_objects).map(lambda fields: Request(*fields))
requests = st.builds(
    Request,
    id=ids,
    command=st.text(min_size=1, max_size=20),
    args=json_objects,
    timestamp=st.none() | texts | finite,
    stream=st.booleans(),
    session_id=optional_texts,
    deadline_ms=st.none() | st.floats(min_value=0, max_value=MAX_DEADLINE_MS) | st.integers(0, MAX_DEADLINE_MS),
    traceparent=optional_texts,
    idempotency_key=optional_texts,
)
error_infos = st.builds(
    ErrorInfo,
    code=texts,
    message=texts,
    retryable=st.booleans(),
    framework=optional_texts,
    type=optional_texts,
    details=json_objects,
    traceback=optional_texts,
)
timestamps = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
replies = st.builds(Reply, id=ids, result=json_values, timestamp=timestamps)
error_replies = st.builds(
    ErrorReply, id=st.none() | ids, error=texts, info=st.none() | error_infos, timestamp=timestamps
)
host_calls = st.fixed_dictionaries({"call_id": texts, "tool": texts, "args": json_objects, "deadline_ms": st.none()})
events = (
    st.builds(Event, id=ids, event=st.just("chunk"), seq=st.integers(min_value=0), data=json_values)
    | st.builds(Event, id=ids, event=st.sampled_from(["log", "progress"]), seq=st.integers(0), data=json_objects)
    | st.builds(Event, id=ids, event=st.just("call"), seq=st.integers(0), data=host_calls)
)
worker_messages = replies | error_replies | events

# Objects that have the names of real fields and nearly their values: the garbage that reaches the deepest.
_field_names = st.sampled_from(
    sorted({*Request._fields, *Reply._fields, *ErrorReply._fields, *Event._fields, "success", "error_info", "extra"})
)
_likely_values: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, True, False, None, "", "mock:echo", "common:ping", {}, [], *EVENT_KINDS]
)
near_messages = st.dictionaries(_field_names, _likely_values | json_values, max_size=8)

garbage_frames = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(frame),
    json_values.map(frame_message),
    near_messages.map(frame_message),
    st.sampled_from([b'"\\ud800"', b"1e400", b'{"id":1e400,"command":"x"}', b"[" * 5000, b"\xff\xfe", b"{}", b""]).map(
        frame
    ),
)
garbage: st.SearchStrategy[bytes] = st.lists(garbage_frames, max_size=6).map(b"".join)
