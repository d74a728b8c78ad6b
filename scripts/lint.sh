#!/usr/bin/env bash
# Every check that reads the code without running it. All of them run; a failure of any fails the whole.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export PATH

failed=()
check() {
    local name=$1
    shift
    printf 'lint: %s\n' "$name"
    "$@" || failed+=("$name")
}

generated_pages() {
    python -m manybridge.protocol.reference --check docs/reference && python -m manybridge.cli.reference --check
}

check "ruff check" ruff check --quiet .
check "ruff format" ruff format --quiet --check .
check "mypy" mypy --no-error-summary
check "import contracts" lint-imports --no-logo
check "spelling" codespell
check "generated pages" generated_pages

if [ "${#failed[@]}" -gt 0 ]; then
    printf 'lint: FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
echo "lint: all checks passed"
