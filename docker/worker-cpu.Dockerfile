# The worker for machines without a GPU: torch's CPU build, a tenth of the size of the CUDA one.
FROM python:3.11.15-slim-bookworm AS builder
ENV PIP_PYTHON=/opt/muka/bin/python
RUN python -m venv --without-pip /opt/muka
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY migrations migrations
COPY worker worker
# A local version (2.x.y+cpu) sorts above the same release on PyPI, so pip takes it; the last line makes sure.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --extra-index-url https://download.pytorch.org/whl/cpu 'muka[worker] @ file:///source' \
    && /opt/muka/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda and "this is a CUDA build")'

FROM python:3.11.15-slim-bookworm
RUN useradd --uid 10001 --create-home muka && install --directory --owner muka --group muka /var/lib/muka
COPY --from=builder /opt/muka /opt/muka
ENV PATH=/opt/muka/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/lib/muka/huggingface \
    MUKA_DATA_DIR=/var/lib/muka \
    MUKA_WORKER_ALIVE_FILE=/tmp/muka-worker-alive
USER 10001
WORKDIR /var/lib/muka
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, sys, time; sys.exit(time.time() - os.stat(os.environ['MUKA_WORKER_ALIVE_FILE']).st_mtime > 30)"]
CMD ["muka", "worker"]
