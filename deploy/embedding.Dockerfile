# syntax=docker/dockerfile:1
# An embedding host: embedding server, or the publisher of its store. From the project's root:
#     docker build -f deploy/embedding.Dockerfile -t llmgr-embedding:0.1.0 .
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
# The CPU build of torch; leave the first line out for the CUDA build.
RUN /opt/llmgr/bin/pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && /opt/llmgr/bin/pip install -c constraints.txt '.[data,embed,redis]'

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/llmgr llmgr \
    && install -d -o 10001 /srv/llmgr/store
COPY --from=build /opt/llmgr /opt/llmgr
COPY deploy/health.py /opt/llmgr/health.py
ENV PATH=/opt/llmgr/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 LLMGR_HOME=/srv/llmgr
USER 10001
WORKDIR /var/lib/llmgr
# Bundle, store and the base language model are mounted: /srv/llmgr/bundle, /srv/llmgr/store, /srv/llmgr/models.
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=180s --retries=2 CMD ["python", "/opt/llmgr/health.py", "127.0.0.1:50051"]
ENTRYPOINT ["llmgr"]
CMD ["serve", "embedding", "--bundle", "/srv/llmgr/bundle", "--store", "/srv/llmgr/store", "--host", "0.0.0.0", "--plain-text"]
