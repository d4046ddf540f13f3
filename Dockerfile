# One file, two images: docker build -t tuneloop .            (CPU)
#                       docker build -t tuneloop:gpu --build-arg DEVICE=gpu .
# The second needs the host's NVIDIA driver 580 or newer and the NVIDIA Container Toolkit; docs/operations.md has both
# images' commands.
FROM python:3.11-slim-bookworm

ARG DEVICE=cpu
# gcc and the Python headers: Triton compiles a launcher at run time on a GPU. libnuma: vLLM pins threads by it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libnuma1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/tuneloop
COPY requirements requirements
COPY pyproject.toml README.md LICENSE ./
COPY adapter_format adapter_format
COPY training training
COPY serving serving
COPY evaluation evaluation
COPY server server
COPY ui ui
RUN sh requirements/install.sh /opt/venv "$DEVICE" && rm -rf /root/.cache

RUN useradd --create-home --uid 10001 tuneloop && install -d -o tuneloop -m 700 /data
USER tuneloop
# The last three: what vLLM, Triton and torch compile on a GPU is there after a restart of the container.
ENV PATH=/opt/venv/bin:$PATH \
    TUNELOOP_DATA_DIR=/data \
    TUNELOOP_CACHE_DIR=/data/cache \
    HF_HOME=/data/huggingface \
    XDG_CACHE_HOME=/data/cache \
    TRITON_CACHE_DIR=/data/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/data/cache/torchinductor
VOLUME /data
EXPOSE 8000
# The first start downloads the model: 15 GB for 7B parameters. A success ends this period.
HEALTHCHECK --start-period=2h CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
# A container's port is reached from outside it, so this address requires an API key: create the first one with
#   docker run --rm -v tuneloop:/data tuneloop tuneloop keys create --name me
CMD ["tuneloop", "up", "--host", "0.0.0.0"]
