"""The host: registry, pools of worker processes, sessions, resources, jobs, and the public classes on top of them.

`bridge` holds `AsyncMLBridge` and `sync` holds `MLBridge`. A call goes down through `router` (what the host answers
itself, sessions, resources), `pool` (who gets which worker), `worker` (one process and its connection) and `process`.
Everything runs on one event loop; no code of a user's bridge runs in this process.
"""
