# TicketSmith as an image, one entry point for every Job. docs/image.md tells how to build, run and extend it.
#
# Only what every builder knows is used here (no RUN --mount, no heredoc): registries that build images themselves
# (`az acr build`) do so without BuildKit.
# checkov:skip=CKV_DOCKER_2:a Job ends by itself, nothing asks for its health
# checkov:skip=CKV_DOCKER_7:the base is an argument, and its default is pinned by digest

# CUDA's runtime, without its libraries: torch brings its own. Python comes from the distribution.
ARG BASE_IMAGE=nvidia/cuda:13.0.3-base-ubuntu24.04@sha256:7c7413a56200486f71f181cad9310f6fd31b6bb21816ade15fc9c1e1e927a5c1


FROM ${BASE_IMAGE} AS base
# Versions of the distribution's packages are those of its release, as the pinned base has it.
# hadolint ignore=DL3008
RUN set -eu; \
    set --; \
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || set -- python3; \
    [ -s /etc/ssl/certs/ca-certificates.crt ] || set -- "$@" ca-certificates; \
    if [ "$#" -gt 0 ]; then \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; \
        rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log; \
    fi; \
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BASE_IMAGE has no Python 3.11 or newer")'; \
    echo 'ticketsmith:x:10001:10001::/work:/usr/sbin/nologin' >>/etc/passwd; \
    echo 'ticketsmith:x:10001:' >>/etc/group; \
    mkdir -p /work /app/recipe; \
    chown 10001:10001 /work; \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +


# Compilers and pip live and die in this stage.
FROM base AS build
# hadolint ignore=DL3008
RUN set -eu; \
    set -- g++ make; \
    python3 -c 'import ensurepip' 2>/dev/null || set -- "$@" python3-venv; \
    [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || set -- "$@" python3-dev; \
    apt-get update; \
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; \
    rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY docker docker
# Where pip finds what the default index lacks; torch's CPU builds, for example.
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_FIND_LINKS=/src/docker/wheels \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN mkdir -p docker/wheels && \
    python3 -m venv --without-pip /opt/venv && \
    python3 -m venv /opt/tools && \
    /opt/tools/bin/pip install --require-hashes -r docker/build.lock

# A layer for each part that changes at a pace of its own: a new commit of TicketSmith is a pull of a few MB.
ARG TORCH=cuda
RUN sh docker/install.sh /layers/torch --require-hashes -r "docker/torch-${TORCH}.lock"
# hadolint ignore=DL3059
RUN sh docker/install.sh /layers/libraries --require-hashes -r docker/libraries.lock

COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY ticketsmith ticketsmith
ARG COMMIT=
# More flags for the compiler of the kernels.
ARG TICKETSMITH_CXXFLAGS=
RUN if [ -n "${COMMIT}" ]; then echo "COMMIT = \"${COMMIT}\"" >>ticketsmith/version.py; fi && \
    /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . && \
    sh docker/install.sh /layers/ticketsmith dist/*.whl && \
    { PYTHONPATH="$(printf "%s:" /layers/*/lib/python3*/site-packages)" /opt/tools/bin/pip --python /opt/venv/bin/python check \
        >check.txt || { test -s check.txt && \
        ! grep -v '^openvino .* requires openvino-telemetry, which is not installed' check.txt; }; }


FROM base AS runtime
COPY --from=build /opt/venv /opt/venv
COPY --from=build /layers/torch /opt/venv
COPY --from=build /layers/libraries /opt/venv
COPY --from=build /layers/ticketsmith /opt/venv

# The root file system may be read-only: what is written goes to /work (caches too, below HOME) and /tmp.
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/work \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    ORT_DISABLE_TELEMETRY=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    LANG=C.UTF-8 \
    LC_ALL=C.UTF-8 \
    TZ=UTC \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 10001:10001

ARG BASE_IMAGE
ARG VERSION=
ARG COMMIT=
LABEL org.opencontainers.image.title="TicketSmith" \
      org.opencontainers.image.description="An experiment factory for the Lottery Ticket Hypothesis" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"

ENTRYPOINT ["ticketsmith"]
CMD ["--help"]
