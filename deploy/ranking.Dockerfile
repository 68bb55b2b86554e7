# syntax=docker/dockerfile:1
# A ranking host: ranking server, or the replica that keeps its store. From the project's root:
#     docker build -f deploy/ranking.Dockerfile -t llmgr-ranking:0.1.0 .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/llmgr
COPY constraints.txt pyproject.toml README.md ./
COPY kernels kernels
COPY llmgr_core llmgr_core
COPY services services
COPY trainer trainer
COPY benchmarks benchmarks
# The CPU build of torch: ranking needs no GPU.
RUN /opt/llmgr/bin/pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && /opt/llmgr/bin/pip install -c constraints.txt '.[serve,redis]'

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/llmgr llmgr \
    && install -d -o 10001 /srv/llmgr/store
COPY --from=build /opt/llmgr /opt/llmgr
COPY deploy/health.py /opt/llmgr/health.py
ENV PATH=/opt/llmgr/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/llmgr
# Bundle and store are mounted: /srv/llmgr/bundle, /srv/llmgr/store. Other arguments than CMD's need --health-port 50053 too, or a
# health check of their own.
EXPOSE 50052 50053
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=2 CMD ["python", "/opt/llmgr/health.py", "127.0.0.1:50053"]
ENTRYPOINT ["llmgr"]
CMD ["serve", "ranking", "--bundle", "/srv/llmgr/bundle", "--store", "/srv/llmgr/store", "--host", "0.0.0.0", "--health-port", "50053", "--plain-text"]
