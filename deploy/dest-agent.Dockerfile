# The destination agent: fills the memory of a VM that runs already.
#
#   docker build -f deploy/dest-agent.Dockerfile -t pagewake-dest-agent .
#
# It runs as an ordinary user without any capability: the userfaultfd comes from the VMM, which opened and registered it. The right to see
# the kernel's own faults (a guest's stage-2 faults, O_DIRECT) is the VMM's business: root, CAP_SYS_PTRACE or /dev/userfaultfd there.
# VMMs connect to a Unix socket of mode 0600 in a folder of mode 0700, so a VMM must run as this user or as root: for libvirt's QEMU start it
# with --user and the numbers of QEMU's user, who then also owns the two folders of the host that are mounted (docs/operations.md).
# A QEMU on the host also needs the preload library: deploy/shim.Dockerfile.

# The same as the npm package `node` in package.json: what is tested is what runs.
ARG NODE_VERSION=26.10.0

FROM node:${NODE_VERSION}-bookworm AS manifests
WORKDIR /app
COPY package.json package-lock.json ./
COPY proto/package.json proto/
COPY core/package.json core/
COPY native/package.json native/
COPY agent-kit/package.json agent-kit/
COPY source-agent/package.json source-agent/
COPY dest-agent/package.json dest-agent/
COPY orchestrator/package.json orchestrator/
COPY testvmm/package.json testvmm/
COPY e2e/package.json e2e/
COPY bench/package.json bench/

# What runs: no install script, so the npm package `node` stays without its binary; the image has one.
FROM manifests AS modules
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

# What builds: node-gyp, and the headers that come with the npm package `node`.
FROM manifests AS native
RUN apt-get update \
  && apt-get install -y --no-install-recommends g++ make python3 libxxhash-dev liblz4-dev \
  && rm -rf /var/lib/apt/lists/*
RUN npm ci --no-audit --no-fund
COPY native/ native/
RUN node native/scripts/build.mjs

FROM node:${NODE_VERSION}-bookworm-slim
RUN groupadd --gid 10001 pagewake \
  && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin pagewake \
  && install -d -o 10001 -g 10001 -m 0700 /run/pagewake /run/pagewake-dest
# The layout of the workspace is kept: Node strips types from our own files, but from none under node_modules.
WORKDIR /app
COPY --from=modules /app/node_modules node_modules
COPY package.json ./
COPY proto/package.json proto/
COPY proto/src proto/src
COPY core/package.json core/
COPY core/src core/src
COPY native/package.json native/
COPY native/ts native/ts
COPY --from=native /app/native/build/Release/pagewake_native.node native/build/Release/
COPY agent-kit/package.json agent-kit/
COPY agent-kit/src agent-kit/src
COPY dest-agent/package.json dest-agent/
COPY dest-agent/src dest-agent/src
COPY orchestrator/package.json orchestrator/
COPY orchestrator/bin orchestrator/bin
COPY orchestrator/src orchestrator/src
COPY deploy/healthcheck.mjs deploy/

# Beyond loopback the agent asks for TLS (PAGEWAKE_TLS_CERT, _KEY, and _CA for client certificates), or --insecure-plaintext.
# The state folder has to outlive the container and need not outlive the host's boot: mount a folder of the host's /run there.
ENV NODE_ENV=production PAGEWAKE_LISTEN=0.0.0.0:7702 PAGEWAKE_VMM_SOCKET_DIR=/run/pagewake PAGEWAKE_STATE_DIR=/run/pagewake-dest
USER 10001:10001
EXPOSE 7702
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["node", "/app/deploy/healthcheck.mjs"]
ENTRYPOINT ["node", "/app/orchestrator/bin/pagewake.mjs", "serve-dest"]
