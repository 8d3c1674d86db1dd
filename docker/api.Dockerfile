# The API and `muka migrate`: everything but torch.
FROM python:3.11.15-slim-bookworm AS builder
ENV PIP_PYTHON=/opt/muka/bin/python
RUN python -m venv --without-pip /opt/muka
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY migrations migrations
COPY worker worker
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install 'muka[api] @ file:///source' \
    && /opt/muka/bin/python -c 'import importlib.util as i, sys; sys.exit(i.find_spec("torch") and "torch came along")'

FROM python:3.11.15-slim-bookworm
RUN useradd --uid 10001 --create-home muka && install --directory --owner muka --group muka /var/lib/muka
COPY --from=builder /opt/muka /opt/muka
ENV PATH=/opt/muka/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/lib/muka/huggingface \
    MUKA_DATA_DIR=/var/lib/muka \
    MUKA_HOST=0.0.0.0 \
    MUKA_PORT=8000
USER 10001
WORKDIR /var/lib/muka
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['MUKA_PORT'] + '/readyz', timeout=4)"]
CMD ["muka", "serve"]
