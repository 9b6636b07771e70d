# docker build -t ekeko:local .
#
# docker run --rm -v "$PWD/config.yaml:/etc/ekeko/config.yaml:ro" -p 127.0.0.1:8180:8180 ekeko:local
#
# A container has a loopback of its own. Either the app shares it (a sidecar: see deploy/), and the
# configuration stays as it is; or ports are published as above, and then the routes listen on
# 0.0.0.0, which takes `access.keys` (or a `client_ca` under `listeners`, or `access.unauthenticated:
# true`), and `access.hosts` has every name but localhost that callers use.
ARG BASE=python:3.13.7-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
# What every request passes is compiled, as in scripts/compile; a base may have what that needs.
ARG COMPILER="gcc libc6-dev"
RUN [ -z "${COMPILER}" ] \
    || { apt-get update && apt-get install -y --no-install-recommends ${COMPILER}; }
RUN python3 -m venv /tmp/tools && python3 -m venv --without-pip /opt/ekeko
# What is installed is what was locked (scripts/lock), by hash, and as wheels. mypyc reads the types
# of what is called.
COPY requirements.lock requirements-build.lock ./
RUN /tmp/tools/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: \
        --require-hashes -r requirements-build.lock -r requirements.lock \
    && /tmp/tools/bin/pip --python /opt/ekeko install --no-cache-dir --disable-pip-version-check \
        --no-compile --only-binary=:all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
# The bytecode holds no times: it is the same in every build, and never written again.
RUN HATCH_BUILD_HOOKS_ENABLE=1 /tmp/tools/bin/pip wheel --disable-pip-version-check \
        --no-deps --no-index --no-build-isolation --wheel-dir /tmp/wheel . \
    && /tmp/tools/bin/pip --python /opt/ekeko install --disable-pip-version-check \
        --no-compile --no-deps --no-index /tmp/wheel/*.whl \
    && /opt/ekeko/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/ekeko/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="ekeko" \
      org.opencontainers.image.description="A local authenticating reverse proxy for Eka Care and Eko" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/ekeko /opt/ekeko
ENV PATH=/opt/ekeko/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# A number without a name, as nothing looks it up: what is mounted has to be readable to it.
USER 10001:10001
EXPOSE 8180 8280
# The admin pages' default address; override this where `admin.listen` is another one.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", \
    "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8190/livez', timeout=2)"]
ENTRYPOINT ["ekeko"]
CMD ["run", "-c", "/etc/ekeko/config.yaml"]
