"""Benchmarks: every figure beside its limit or a peer, in the same run.

`python -m benchmarks` runs them all; `python -m benchmarks calls startup` some. Results go to `benchmarks/results/` as
JSON with machine, versions and commit, and as a plot. Absolute times belong to the machine; the ratios are the result.
"""
