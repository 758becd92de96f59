# syntax=docker/dockerfile:1
# One image for migrate, api, worker and dashboard; docker-compose.yml gives each its command.

FROM python:3.11-slim-bookworm AS builder
# For machines without an NVIDIA GPU, 4 GB less: --build-arg PIP_EXTRA_INDEX_URL=(the index of PyTorch for CPUs)
ARG PIP_EXTRA_INDEX_URL
# The version that `calibrl --version` shows: the image is built without git.
ARG VERSION=0.1.0
ENV SETUPTOOLS_SCM_PRETEND_VERSION=$VERSION
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
# Without the sources, which change daily: this layer holds their dependencies and the command `calibrl`.
COPY pyproject.toml hatch_build.py alembic.ini constraints.txt README.md LICENSE ./
# A torchvision that was built for another torch cannot be imported, and breaks every image processor: without it most
# of them work.
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt '.[server,trainer,vision,dashboard,s3]' \
    && { python -c 'import torchvision' || { echo 'torchvision does not fit this torch: it is removed' && pip uninstall -y torchvision; }; }

FROM python:3.11-slim-bookworm
# For functions of users; the container also needs the options in docs/how-to/server.md.
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 calibrl && install -d -o calibrl -g calibrl /data
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY . .
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 CALIBRL_DATA_DIR=/data
USER calibrl
VOLUME /data
