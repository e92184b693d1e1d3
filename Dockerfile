# Builds the binary, then puts it alone into a small image that runs as nobody in particular.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies first: they change seldom and take the time.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs && cargo build --release --locked; rm -rf src
COPY . .
RUN touch src/main.rs src/lib.rs && cargo build --release --locked
# What the server writes to, as directories of the user that it runs as: a new volume takes them over.
RUN mkdir -p /volumes/data /volumes/config

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/alertrace /usr/local/bin/alertrace
COPY --from=build --chown=65532:65532 /volumes/ /
WORKDIR /config
# Certificates live with the data, so that one volume holds what must not be lost: the site's authority
# is on every device. Set ALERTRACE__TLS__NAMES to the names that devices reach this container by: it
# knows none but its own.
ENV ALERTRACE__DATA_DIR=/data \
    ALERTRACE__TLS__DIR=/data/certs \
    ALERTRACE__HTTP__LISTEN=0.0.0.0:8000 \
    ALERTRACE__MQTT__LISTEN=0.0.0.0:1883 \
    ALERTRACE__LOG__FORMAT=json
VOLUME ["/data", "/config"]
EXPOSE 8000 1883 8883
ENTRYPOINT ["/usr/local/bin/alertrace"]
CMD ["serve"]
