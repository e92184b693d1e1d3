//! Spans to a collector, by OTLP over HTTP.
//!
//! Nothing waits for it: spans go into a bounded queue, a thread of its own sends them, and what finds the queue full
//! is dropped.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer as _, Registry};

use super::Error;
use super::logs::Boxed;

/// Spans that may wait.
const QUEUE: usize = 2_048;
/// For one answer of the collector.
const PATIENCE: Duration = Duration::from_secs(5);

/// The layer that hands spans over, and the provider to be shut down at the end.
pub(super) fn layer(endpoint: &str) -> Result<(Boxed, SdkTracerProvider), Error> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(PATIENCE)
        .build()
        .map_err(|e| Error::Traces(e.to_string()))?;
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(Resource::builder().with_service_name("alertrace").build())
        .build();
    // Our own spans: what the libraries below do is of interest to nobody who looks at a trace of readings.
    let ours = Targets::new().with_target("alertrace", LevelFilter::DEBUG);
    let layer = tracing_opentelemetry::layer::<Registry>().with_tracer(provider.tracer("alertrace"));
    Ok((layer.with_filter(ours).boxed(), provider))
}
