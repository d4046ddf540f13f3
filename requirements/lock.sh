#!/bin/sh
# Pins every package again: sh requirements/lock.sh UV. Writes cpu.txt and gpu.txt, without host names.
set -eu
uv=$1
cd "$(dirname "$0")"
cpu_torch=$(mktemp)
trap 'rm -f "$cpu_torch"' EXIT
echo 'torch==2.13.0+cpu' >"$cpu_torch"
compile() { "$uv" pip compile --quiet --upgrade --python-version 3.11 --extra dev --no-annotate --no-header "$@" ../pyproject.toml; }
compile --extra cpu --override overrides.txt --constraint "$cpu_torch" --output-file cpu.txt
# Without the links that may lead to torch's CPU build: it would be taken for the newer one.
UV_FIND_LINKS='' compile --extra gpu --constraint gpu_constraints.txt --python-platform x86_64-unknown-linux-gnu --output-file gpu.txt

# The CUDA that torch was built for is in the name of the cuDNN that its wheel asks for.
cuda=$(sed -n 's/^nvidia-cudnn-cu\([0-9]*\)==.*/\1/p' gpu.txt)
for package in cuda-python cuda-bindings nvidia-cuda-runtime; do
    grep -q "^$package==$cuda\." gpu.txt || {
        echo "gpu.txt has $(grep "^$package==" gpu.txt || echo "no $package"), but torch's CUDA is $cuda: see gpu_constraints.txt." >&2
        exit 1
    }
done
echo "Now try gpu.txt: sh requirements/check_gpu.sh (some minutes, 10 GB, no GPU needed)."
