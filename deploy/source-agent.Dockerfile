# The source agent: serves the memory of paused VMs.
#
#   docker build -f deploy/source-agent.Dockerfile -t pagewake-source-agent .
#
# It runs as an ordinary user whose Node has two capabilities, because the memory that it reads is another process's:
#   CAP_SYS_PTRACE       process_vm_readv, /proc/PID/maps
#   CAP_DAC_READ_SEARCH  /proc/PID/fd and /proc/PID/pagemap of a VMM that runs as another user; without it a memfd
#                        cannot be opened there, CAP_SYS_PTRACE or not
# They are capabilities of a file, as Docker gives none to a user that is not root. So the container needs
# `--cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH` (without them the kernel does not start the program: "operation not permitted"),
# must not have `no-new-privileges`, and must share the VMM's PID namespace (`--pid host`).
# For snapshots, and for VMMs that run as this very user, no capability is needed: `--entrypoint node` with the rest of the command.

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
RUN apt-get update \
  && apt-get install -y --no-install-recommends libcap2-bin \
  && cp /usr/local/bin/node /usr/local/bin/node-ptrace \
  && setcap cap_sys_ptrace,cap_dac_read_search=ep /usr/local/bin/node-ptrace \
  && apt-get purge -y --auto-remove libcap2-bin \
  && rm -rf /var/lib/apt/lists/* \
  && groupadd --gid 10001 pagewake \
  && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin pagewake \
  && install -d -o 10001 -g 10001 -m 0700 /run/pagewake-source
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
COPY source-agent/package.json source-agent/
COPY source-agent/src source-agent/src
COPY orchestrator/package.json orchestrator/
COPY orchestrator/bin orchestrator/bin
COPY orchestrator/src orchestrator/src
COPY deploy/healthcheck.mjs deploy/

# Beyond loopback the agent asks for TLS (PAGEWAKE_TLS_CERT, _KEY, and _CA for client certificates), or --insecure-plaintext.
# Ports of the lanes that can be published: by default the kernel chooses them.
# The state folder has to outlive the container and need not outlive the host's boot: mount a folder of the host's /run there.
ENV NODE_ENV=production PAGEWAKE_LISTEN=0.0.0.0:7701 PAGEWAKE_FAULT_PORT=7703 PAGEWAKE_BULK_PORT=7704 \
  PAGEWAKE_STATE_DIR=/run/pagewake-source
USER 10001:10001
EXPOSE 7701 7703 7704
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["node", "/app/deploy/healthcheck.mjs"]
ENTRYPOINT ["node-ptrace", "/app/orchestrator/bin/pagewake.mjs", "serve-source"]
