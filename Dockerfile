# The image of all roles, for linux/amd64 and linux/arm64. hack/image.sh builds it for this machine, with Docker or without, and hands in
# the binary that is already there in place of the stage `build` (--build-context build=DIR); hack/release.sh builds it for both.
#
# The compiler runs on the builder's own platform and compiles for the other one: no emulation. The same commit gives the same binary
# wherever it is built: paths are mapped, and nothing in it says when.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY rust-toolchain.toml ./
RUN case "${TARGETARCH:-$(dpkg --print-architecture)}" in \
      amd64) echo x86_64 ;; \
      arm64) echo aarch64 ;; \
      *) echo "no build for $TARGETARCH: write amd64 or arm64" >&2; exit 1 ;; \
    esac >/arch \
 && arch="$(cat /arch)" \
 && rustup target add "$arch-unknown-linux-gnu" \
 && if [ "$arch" != "$(uname -m)" ]; then \
      apt-get update && apt-get install -y --no-install-recommends "gcc-$(echo "$arch" | tr _ -)-linux-gnu" "libc6-dev-$(echo "$arch" | sed 's/x86_64/amd64/; s/aarch64/arm64/')-cross"; \
    fi
COPY . .
# Kernels for arm64 have pages of 4 to 64 KiB: the allocator has to be built for the largest.
RUN arch="$(cat /arch)" triple="$(cat /arch)-unknown-linux-gnu" \
 && name="$(echo "$triple" | tr a-z- A-Z_)" \
 && export "CARGO_TARGET_${name}_LINKER=$arch-linux-gnu-gcc" "CC_$(echo "$triple" | tr - _)=$arch-linux-gnu-gcc" \
 && if [ "$arch" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
 && . hack/rustflags.sh \
 && cargo build --release --locked --bin voicedock --target "$triple" \
 && install -D "target/$triple/release/voicedock" /out/voicedock

FROM scratch
LABEL org.opencontainers.image.title="VoiceDock" \
      org.opencontainers.image.description="AI assistants on the phone, and the people whom they hand callers to" \
      org.opencontainers.image.source="https://github.com/voicedock/voicedock" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/voicedock /voicedock
USER 65532:65532
ENTRYPOINT ["/voicedock"]
