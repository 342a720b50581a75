# The preload library for a QEMU that a guest migrates to. QEMU runs on the host, so the library goes there and into no agent's image:
#
#   docker build -f deploy/shim.Dockerfile --output type=local,dest=/usr/lib/pagewake .
#
# puts pagewake-shim.so into that folder. It needs the glibc of Debian 12 (2.34 or later) where it runs; `make -C shim` does the same without Docker.

# The image that the agents are built in: it has a C compiler and make.
ARG NODE_VERSION=26.10.0

FROM node:${NODE_VERSION}-bookworm AS build
WORKDIR /app
COPY shim/Makefile shim/
COPY shim/src shim/src
RUN make -C shim build/pagewake-shim.so

FROM scratch
COPY --from=build /app/shim/build/pagewake-shim.so /
