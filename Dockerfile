# Builds the binary, then puts it alone into a small image that runs as nobody in particular, and whose root file
# system may be read-only. scripts/image-check replays this file without Docker.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies first: they change seldom and take the time.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs && cargo build --profile image --locked && rm -rf src
COPY . .
RUN touch src/main.rs src/lib.rs && cargo build --profile image --locked
RUN packaging/make-root target/image/alertrace /root-fs

FROM scratch
COPY --from=build /root-fs/ /
USER 65532:65532
WORKDIR /
# Certificates live with the data, so that one volume holds what must not be lost: the site's authority
# is on every device. Set ALERTRACE__TLS__NAMES to the names that devices reach this container by: it
# knows none but its own. SQLite sorts on disk what is too much for memory, and elsewhere than in a volume nothing
# can be written.
ENV ALERTRACE__DATA_DIR=/data \
    SQLITE_TMPDIR=/data \
    ALERTRACE__TLS__DIR=/data/certs \
    ALERTRACE__HTTP__LISTEN=0.0.0.0:8000 \
    ALERTRACE__MQTT__LISTEN=0.0.0.0:1883 \
    ALERTRACE__MQTT__TLS_LISTEN=0.0.0.0:8883 \
    ALERTRACE__LOG__FORMAT=json
VOLUME ["/data", "/config"]
EXPOSE 8000 1883 8883
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/alertrace", "doctor", "--quick"]
ENTRYPOINT ["/usr/local/bin/alertrace"]
CMD ["serve"]
