#!/bin/sh
# Bring .venv up to date: `setup.sh uv`, `setup.sh core` (what the library needs) or
# `setup.sh dev` (everything). Does nothing where that is done already.
#
# PYTHON names the interpreter; left empty, the newest suitable one is used.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd -P)
stage=$1

fail() {
    echo "setup: $1" >&2
    exit 1
}

suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

pick_python() {
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
        python=$PYTHON
        return
    fi
    for python in python3.13 python3.12 python3.11 python3; do
        if suitable "$python"; then return; fi
    done
    fail "no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3"
}

identity() {
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null
}

# A .venv is used as it is if it was made here (copied ones run the original's tools), works,
# and is of the interpreter asked for, if one was.
usable() {
    grep -qsF "$here/.venv" .venv/pyvenv.cfg || return 1
    suitable .venv/bin/python || return 1
    [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity .venv/bin/python)" ]
}

create() {
    pick_python
    rm -rf .venv
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv .venv
    elif "$python" -m pip --python "$python" --version >/dev/null 2>&1; then
        # Debian keeps ensurepip in a package of its own; an outer pip can do its work.
        "$python" -m venv --without-pip .venv
    else
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$python lacks venv or pip; on Debian: apt-get install python$version-venv"
    fi
}

install_uv() {
    if .venv/bin/python -m pip --version >/dev/null 2>&1; then
        set -- .venv/bin/python -m pip
    else
        pick_python
        set -- "$python" -m pip --python .venv/bin/python
    fi
    "$@" install -qq --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
}

uv_install() {
    .venv/bin/uv pip install --quiet --python .venv/bin/python "$@"
}

key=$(cat requirements/bootstrap.lock requirements/dev.lock pyproject.toml scripts/setup.sh | cksum)

done_already() {
    [ "$(cat ".venv/.setup-$1" 2>/dev/null)" = "$key" ]
}

mark() {
    for name in "$@"; do echo "$key" >".venv/.setup-$name"; done
}

usable || create
done_already "$stage" && exit

echo "setup: installing into .venv ($stage)" >&2
done_already uv || install_uv
mark uv
case $stage in
uv) ;;
core)
    # Build requirements are held to the lock as well.
    uv_install --constraint requirements/dev.lock --build-constraint requirements/dev.lock --editable .
    mark core
    ;;
dev)
    uv_install --require-hashes --requirement requirements/dev.lock
    uv_install --no-deps --no-build-isolation --editable .
    mark core dev
    ;;
*) fail "no such stage: $stage" ;;
esac
