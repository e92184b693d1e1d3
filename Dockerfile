# Builds the binary, then puts it alone into a small image that runs as nobody in particular.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies first: they change seldom and take the time.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs && cargo build --release --locked; rm -rf src
COPY . .
RUN touch src/main.rs src/lib.rs && cargo build --release --locked

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/alertrace /usr/local/bin/alertrace
WORKDIR /config
ENV ALERTRACE__DATA_DIR=/data \
    ALERTRACE__HTTP__LISTEN=0.0.0.0:8000 \
    ALERTRACE__MQTT__LISTEN=0.0.0.0:1883 \
    ALERTRACE__LOG__FORMAT=json
VOLUME ["/data", "/config"]
EXPOSE 8000 1883
ENTRYPOINT ["/usr/local/bin/alertrace"]
CMD ["serve"]
