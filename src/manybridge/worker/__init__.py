"""The process around a bridge. Standard library only: it runs inside a framework's own environment.

`main` starts it, `runtime` joins the parts, `lane` reads (and answers while user code runs), `executor` runs user
code, `outbox` writes, `control` and `resources` hold the `common:*` commands, `zygote` forks.
"""
