# The image of all roles. hack/image.sh builds it, with Docker or without; it hands in the binary that is already
# there in place of the stage `build` (--build-context build=DIR).
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN triple="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$triple" \
 && install -D "target/$triple/release/voicedock" /out/voicedock

FROM scratch
COPY --from=build /out/voicedock /voicedock
USER 65532:65532
ENTRYPOINT ["/voicedock"]
