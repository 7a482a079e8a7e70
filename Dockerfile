# The images of Koios, one target each: koios has every component behind one entrypoint, the others have one.
#
#   docker build --target koios .          where the image of the compiler can be had
#   make image, make images                anywhere: they compile on this machine and hand the result in as the first stage
#
# docs/images.md says what is in them and what they promise.
ARG GO_IMAGE=golang:1.26

FROM ${GO_IMAGE} AS programs
ARG REVISION=unknown
RUN apt-get update -q && apt-get install -y -q --no-install-recommends busybox-static ca-certificates
WORKDIR /src
COPY . .
RUN make image-files IMAGE_FILES=/image REVISION=${REVISION}

# What every image has: a shell and wget for probes, kill for people, certificate authorities, users, /tmp and /data.
FROM scratch AS base
COPY --from=programs /image/base/ /
ENV PATH=/bin
WORKDIR /data
# 10901 gRPC, 10902 HTTP
EXPOSE 10901 10902
USER 65534:65534

# The thanos that manifests name, by either of its usual paths, is the same program.
FROM base AS everything
COPY --from=programs /image/programs/koios /bin/koios
COPY --from=programs /image/names/ /
ENTRYPOINT ["/bin/koios"]

FROM base AS koios-sidecar
COPY --from=programs /image/programs/sidecar /bin/koios-sidecar
ENTRYPOINT ["/bin/koios-sidecar"]

FROM base AS koios-store
COPY --from=programs /image/programs/store /bin/koios-store
ENTRYPOINT ["/bin/koios-store"]

FROM base AS koios-query
COPY --from=programs /image/programs/query /bin/koios-query
ENTRYPOINT ["/bin/koios-query"]

FROM base AS koios-query-frontend
COPY --from=programs /image/programs/query-frontend /bin/koios-query-frontend
ENTRYPOINT ["/bin/koios-query-frontend"]

FROM base AS koios-compact
COPY --from=programs /image/programs/compact /bin/koios-compact
ENTRYPOINT ["/bin/koios-compact"]

FROM base AS koios-tools
COPY --from=programs /image/programs/tools /bin/koios-tools
ENTRYPOINT ["/bin/koios-tools"]

# Last, so that it is what a build without a target makes.
FROM everything AS koios
