//! MQTT over WebSocket: the upgrade, and the byte stream that comes of it. What is said on the stream is
//! the broker's; `app` brings the two together.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State as Shared;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::State;
use super::listener::Peer;
use super::problem::Problem;

/// [MQTT-6.0.0-3] [MQTT-6.0.0-4]
const SUBPROTOCOL: &str = "mqtt";

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// Serves a client at this address to its end.
pub type Gate =
    Arc<dyn Fn(Box<dyn ByteStream>, IpAddr) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// `GET /mqtt`: MQTT 3.1.1 or 5.0 in binary frames, subprotocol `mqtt`.
pub(super) async fn upgrade(
    Shared(state): Shared<State>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|_| super::live::not_a_websocket())?;
    let offered = upgrade.requested_protocols().any(|p| p.as_bytes() == SUBPROTOCOL.as_bytes());
    if !offered {
        return Err(no_subprotocol());
    }
    let parts = state.parts();
    let (gate, ip) = (parts.mqtt.clone(), peer.client(&headers, parts.settings.behind_proxy));
    let max = parts.settings.mqtt_packet;
    let upgrade = upgrade.protocols([SUBPROTOCOL]).max_message_size(max).max_frame_size(max);
    Ok(upgrade.on_upgrade(move |socket| gate(Box::new(bytes_of(socket)), ip)))
}

/// The bytes that frames carry, wherever one frame ends and the next begins [MQTT-6.0.0-2].
fn bytes_of(socket: WebSocket) -> impl ByteStream {
    let (sink, stream) = socket.split();
    let frames = stream.filter_map(|frame| {
        future::ready(match frame {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            // [MQTT-6.0.0-1]
            Ok(Message::Text(_)) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, "a text frame"))),
            Ok(Message::Ping(_) | Message::Pong(_)) => None,
            Ok(Message::Close(_)) => Some(Err(io::ErrorKind::ConnectionAborted.into())),
            Err(e) => Some(Err(io::Error::other(e))),
        })
    });
    let sink = sink
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    tokio::io::join(StreamReader::new(frames), SinkWriter::new(CopyToBytes::new(sink)))
}

fn no_subprotocol() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "subprotocol_required",
        "Ofrezca el subprotocolo mqtt (Sec-WebSocket-Protocol: mqtt).",
        "Offer the subprotocol mqtt (Sec-WebSocket-Protocol: mqtt).",
    )
}
