# One file for every service:   docker build --build-arg SERVICE=registry -t paracle-registry .
# Several in one image, such as what provisions for all:   --build-arg SERVICE="registry orchestrator"
FROM python:3.13-slim AS build
# Its version and hashes stand in scripts/uv.lock.txt; everything else is held to requirements.lock.
COPY scripts/uv.lock.txt /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/uv.lock.txt
WORKDIR /src
COPY requirements.lock ./
RUN sed -E '/^ +--hash=/d; s/ \\$//' requirements.lock > constraints.txt
ENV UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/paracle
RUN uv venv --quiet /opt/paracle
COPY libs libs
COPY services services
ARG SERVICE
RUN --mount=type=cache,target=/var/cache/uv \
    set -- ./libs/paracle_domain ./libs/paracle_chassis; \
    for service in ${SERVICE:?say which with --build-arg SERVICE=registry}; do set -- "$@" "./services/$service"; done; \
    # the gateway's image has its model for embeddings; what provisions for the gateway needs none
    if [ "$SERVICE" = provider_gateway ]; then set -- "$@" "./services/provider_gateway[local]"; fi; \
    uv pip install --no-sources --constraint constraints.txt --build-constraint constraints.txt "$@"

FROM python:3.13-slim
ARG SERVICE
LABEL org.opencontainers.image.title="paracle-${SERVICE}" org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 paracle && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin paracle
COPY --from=build /opt/paracle /opt/paracle
# Health is asked for from outside the container, hence on every address of it.
ENV PATH=/opt/paracle/bin:$PATH PYTHONUNBUFFERED=1 SERVICE=${SERVICE} \
    PARACLE_HEALTH_HOST=0.0.0.0 PARACLE_HEALTH_PORT=8081
USER 10001:10001
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --start-interval=1s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PARACLE_HEALTH_PORT\"]}/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
# The shell gives way to Python, which so gets the signals.
CMD ["/bin/sh", "-c", "exec python -m paracle_${SERVICE}"]
