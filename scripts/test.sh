#!/usr/bin/env bash
# Every test.
#
# MANYBRIDGE_TEST_SECOND_CHANCE=N (default 0): if no more than N tests fail, they run once more, and only what fails
# again fails the whole. For a machine that others use too, among 5,600 tests that start, stop and kill processes.
# What failed at first is printed at the end in either case: it is a fault until somebody has found its cause.
set -uo pipefail
cd "$(dirname "$0")/.."

cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
.venv/bin/pytest -o cache_dir="$cache" "$@"
status=$?
[ "$status" -eq 1 ] || exit "$status"  # 1: tests failed; anything else is no matter of chance

failed=$(.venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$cache/v/cache/lastfailed")
count=$(wc -l <<<"$failed")
[ "$count" -le "${MANYBRIDGE_TEST_SECOND_CHANCE:-0}" ] || exit "$status"

printf '\ntest: %s failed and run once more\n' "$count"
.venv/bin/pytest -o cache_dir="$cache" --last-failed "$@"
status=$?
if [ "$status" -eq 0 ]; then
    printf '\ntest: PASSED ONLY THE SECOND TIME (find out why, see CONTRIBUTING.md):\n%s\n' "$failed"
fi
exit "$status"
