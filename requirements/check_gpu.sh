#!/bin/sh
# Whether requirements/gpu.txt makes an engine that starts, found out without a GPU: sh requirements/check_gpu.sh [VENV]
# Installs it (some minutes, 10 GB) into VENV, by default a folder of its own that is removed at the end (KEEP=1: it stays).
# Wants gcc and nm. PYTHON: the Python to install for, by default python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
began=$(date +%s)
for program in gcc nm; do
    command -v $program >/dev/null || { echo "check_gpu.sh wants $program. Install it (Debian: gcc, binutils)." >&2; exit 1; }
done
place=
[ $# -gt 0 ] || place=$(mktemp -d "${TMPDIR:-/tmp}/tuneloop-check-gpu.XXXXXX")
venv=${1:-$place/venv}
trap '[ -z "$place" ] || [ -n "${KEEP:-}" ] || rm -rf "$place"' EXIT
trap 'exit 1' INT TERM
sh "$here/install.sh" "$venv" gpu || { echo "FAIL  install.sh ended with an error: nothing more was looked at." >&2; exit 1; }
echo "ok    installed into $venv ($(($(date +%s) - began)) s)"
cd "$here/.."
"$venv/bin/python" -m tests.gpu.check
