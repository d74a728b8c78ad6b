#!/usr/bin/env bash
# Make .venv with nothing in it but the locked uv, and see to the PostgreSQL that tests start. Needs Python >= 3.11 and
# a package index; nothing else.
#
# Run by `make setup`. Safe to run again: an existing .venv that works is kept and only its uv is brought up to date.
# PYTHON names the interpreter to build on (default: the first of python3, python3.13, ... that is new enough).
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
lock=requirements/bootstrap.txt
probe='import sys; sys.exit(sys.version_info < (3, 11))'

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null && "$candidate" -c "$probe" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python >= 3.11 was found (looked for ${PYTHON:-python3, python3.13, python3.12, python3.11});" \
        "install one (Debian 12: apt-get install python3) or run: make setup PYTHON=/path/to/python3"
}

# Debian splits venv's ensurepip out of python3, and `import venv` works without it, so ask for ensurepip.
ensure_venv_module() {
    if "$1" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
    local install="apt-get install -y --no-install-recommends python3-venv python3-pip"
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fail "$1 cannot make virtual environments (no ensurepip). As root, run: $install"
    fi
    say "$1 has no ensurepip: $install"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
    "$1" -c 'import ensurepip, venv' || fail "$1 still has no ensurepip after: $install"
}

# Tests of the store start a server of their own, with the programs of this package; the package's own is not used.
# Without them everything but those tests works, so this is never an error here: the tests say what is missing.
ensure_postgresql() {
    if command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then return; fi
    local install="apt-get install -y --no-install-recommends postgresql"
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "PostgreSQL is not installed: its tests are skipped (in CI they fail). As root, run: $install"
        return
    fi
    say "no PostgreSQL: $install"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null; } ||
        say "PostgreSQL could not be installed: its tests are skipped (in CI they fail)"
}

if ! { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$probe" 2>/dev/null; }; then
    python=$(find_python)
    ensure_venv_module "$python"
    say "making $venv with $("$python" --version) ($(command -v "$python"))"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

# pip is there only until the first sync; later, uv replaces itself.
if [ -x "$venv/bin/uv" ]; then
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r "$lock"
else
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
fi
say "$("$venv/bin/uv" --version)"
ensure_postgresql
