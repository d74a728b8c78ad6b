#!/usr/bin/env bash
# Resolve every dependency and write the locks, with hashes, to requirements/*.txt.
#
# Usage: scripts/lock.sh [--upgrade]
# Without --upgrade the pinned versions stay as they are wherever the inputs still allow them.
# The locks hold no index address: they install from whatever index the machine is configured for.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=.venv/bin/uv
export UV_CUSTOM_COMPILE_COMMAND="make lock"
if [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS="${UV_FIND_LINKS:-$PIP_FIND_LINKS}"; fi

compile_for_one() {
    "$uv" pip compile --quiet --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links "$@" >/dev/null
}
compile() { compile_for_one --universal "$@"; }

# dev.txt is what .venv gets. The smaller locks are cut from it, so that a package has one version in all three.
echo "lock: requirements/dev.txt"
compile "$@" pyproject.toml --group dev --output-file requirements/dev.txt
echo "lock: requirements/host.txt"
compile pyproject.toml --constraints requirements/dev.txt --upgrade --no-annotate --output-file requirements/host.txt
echo "lock: requirements/bootstrap.txt"
compile requirements/bootstrap.in --constraints requirements/dev.txt --upgrade --no-annotate \
    --output-file requirements/bootstrap.txt
for environment in dspy sklearn langchain; do
    echo "lock: requirements/env-$environment.txt"
    compile "$@" "requirements/env-$environment.in" --output-file "requirements/env-$environment.txt"
done
# PyTorch's CPU build is no release of the package index: one lock for where a folder of wheels holds it, and one for
# everywhere else. Neither can be universal, because the builds have different dependencies.
if [ -n "${UV_FIND_LINKS:-}" ]; then
    echo "lock: requirements/env-transformers.txt"
    compile_for_one "$@" --python-platform x86_64-manylinux_2_28 requirements/env-transformers.in \
        --output-file requirements/env-transformers.txt
fi
echo "lock: requirements/env-transformers-registry.txt"
UV_FIND_LINKS="" compile_for_one "$@" --python-platform x86_64-manylinux_2_28 requirements/env-transformers.in \
    --output-file requirements/env-transformers-registry.txt
