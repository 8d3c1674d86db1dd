# The worker for NVIDIA GPUs. torch's wheels on PyPI bring the CUDA libraries, and the driver comes from the host
# through the NVIDIA Container Toolkit, which the two NVIDIA_ variables address: no nvidia/cuda base is needed.
FROM python:3.11.15-slim-bookworm AS builder
ENV PIP_PYTHON=/opt/muka/bin/python
RUN python -m venv --without-pip /opt/muka
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY migrations migrations
COPY worker worker
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install 'muka[worker] @ file:///source' \
    && /opt/muka/bin/python -c 'import sys, torch; sys.exit(not torch.version.cuda and "this is no CUDA build")'

FROM python:3.11.15-slim-bookworm
RUN useradd --uid 10001 --create-home muka && install --directory --owner muka --group muka /var/lib/muka
COPY --from=builder /opt/muka /opt/muka
ENV PATH=/opt/muka/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=/var/lib/muka/huggingface \
    MUKA_DATA_DIR=/var/lib/muka \
    MUKA_WORKER_ALIVE_FILE=/tmp/muka-worker-alive
USER 10001
WORKDIR /var/lib/muka
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, sys, time; sys.exit(time.time() - os.stat(os.environ['MUKA_WORKER_ALIVE_FILE']).st_mtime > 30)"]
CMD ["muka", "worker"]
