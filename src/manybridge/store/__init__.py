"""The durable store: resources with their recipes, sessions, jobs with results and events, idempotency keys.

`records.py` says what is kept, `base.py` what a store can do. The hot path of a stateless call never comes here.
"""
