//! Payloads of readings that came by HTTP, on their way to the topic of their sensor.

use bytes::Bytes;
use metrics::counter;
use tokio::sync::mpsc;

use crate::domain::SensorRef;

/// Payloads that may wait; each may be as large as a request.
const ESPERAN: usize = 64;

/// The way in; cheap to clone.
#[derive(Debug, Clone)]
pub struct Rutas(mpsc::Sender<(SensorRef, Bytes)>);

/// The way out: the broker's.
pub type Llegadas = mpsc::Receiver<(SensorRef, Bytes)>;

impl Rutas {
    /// A way from the API to the broker.
    #[must_use]
    pub fn new() -> (Self, Llegadas) {
        let (manda, llegadas) = mpsc::channel(ESPERAN);
        (Self(manda), llegadas)
    }

    /// Hands over the payload of a message of which something was stored. Subscribers miss it when the
    /// broker is far behind; it is counted, and stored all the same.
    pub fn manda(&self, sensor: SensorRef, payload: Bytes) {
        if self.0.try_send((sensor, payload)).is_err() {
            counter!("alertrace_mqtt_messages_dropped_total", "reason" => "events").increment(1);
        }
    }
}
