//! The life of one WebSocket: let in, snapshot, events, and a close that says why.
//!
//! Two futures of one task share it. The pump decides and never waits for the client; the writer
//! sends what the pump has put into a bounded queue. A client that lets the queue fill, or that the
//! hub overtakes, misses events; once it has read what waits it gets `resync` and a new snapshot.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::filter::Filter;
use super::{Oyente, State};
use crate::api::shapes::SensorBody;
use crate::identity::{Principal, Revocado, cuentas};
use crate::realtime::Evento;
use crate::store::{self, sensores};

/// For the first message, when no token came with the request.
const AUTH_DEADLINE: Duration = Duration::from_secs(5);
/// Between two pings.
const PING: Duration = Duration::from_secs(30);
/// A client that has not been heard for this long has gone: two pings and some.
const SILENCE: Duration = Duration::from_secs(75);
/// For the close handshake.
const GOODBYE: Duration = Duration::from_secs(1);

type Sink = SplitSink<WebSocket, Message>;
type Stream = SplitStream<WebSocket>;

/// Why a WebSocket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    /// The client went.
    Ido,
    /// The server stops.
    Parada,
    /// Not signed in, or not any more.
    Sesion,
    /// Signed in, and sees no empresa's data.
    Prohibido,
    /// A `subscribe` that cannot be read: the client would believe itself narrowed.
    Mensaje,
    /// The store does not answer; the client should come back.
    Despues,
}

impl Fin {
    const fn frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Ido => return None,
            Self::Parada => (1001, "the server is stopping"),
            Self::Sesion => (4401, "not signed in"),
            Self::Prohibido => (4403, "no empresa"),
            Self::Mensaje => (1008, "unreadable subscribe"),
            Self::Despues => (1013, "try again later"),
        };
        Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })
    }
}

/// What a client says.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    tipo: String,
    #[serde(default)]
    token: Option<String>,
}

/// What the server says by itself; events come ready from [`Evento::json`].
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Frame<'a> {
    Snapshot { sensores: &'a [SensorBody] },
    Resync,
}

impl Frame<'_> {
    fn message(&self) -> Message {
        Message::text(serde_json::to_string(self).unwrap_or_default())
    }
}

/// Counts the open ones, also when one ends by a panic.
struct Open;

impl Open {
    fn new() -> Self {
        gauge!("alertrace_websockets").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!("alertrace_websockets").decrement(1.0);
    }
}

/// Runs a WebSocket to its end. `oyente` is `None` when no token came with the request.
pub(super) async fn run(state: &State, socket: WebSocket, oyente: Option<Oyente>, filter: Filter) {
    let _open = Open::new();
    let (mut sink, mut stream) = socket.split();
    let fin = match admit(state, &mut stream, oyente).await {
        Ok(oyente) => {
            let capacity = state.parts().settings.socket_queue.max(2);
            let (cola, salida) = mpsc::channel(capacity);
            let pump =
                Pump { state, quien: Principal::Usuario(oyente.usuario.clone()), oyente, filter, cola };
            tokio::select! {
                fin = pump.run(&mut stream) => fin,
                () = write(&mut sink, salida) => Fin::Ido,
            }
        }
        Err(fin) => fin,
    };
    goodbye(sink, stream, fin).await;
}

/// Sends what waits, until the client is gone.
async fn write(sink: &mut Sink, mut salida: mpsc::Receiver<Message>) {
    while let Some(message) = salida.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

/// Says why, and waits a moment for the client's own close: a reset could overtake the reason.
async fn goodbye(mut sink: Sink, mut stream: Stream, fin: Fin) {
    let Some(frame) = fin.frame() else { return };
    let handshake = async {
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = timeout(GOODBYE, handshake).await;
}

/// Whoever came with a token, or says one first.
async fn admit(state: &State, stream: &mut Stream, oyente: Option<Oyente>) -> Result<Oyente, Fin> {
    if let Some(oyente) = oyente {
        return Ok(oyente);
    }
    let text = tokio::select! {
        () = state.0.stop.cancelled() => return Err(Fin::Parada),
        first = timeout(AUTH_DEADLINE, first_text(stream)) => first.map_err(|_| Fin::Sesion)?.ok_or(Fin::Ido)?,
    };
    let said = serde_json::from_str::<Said>(&text).ok().filter(|s| s.tipo == "auth");
    let token = said.and_then(|s| s.token).ok_or(Fin::Sesion)?;
    Oyente::entra(state, token).await.map_err(|problem| match problem.status().as_u16() {
        401 => Fin::Sesion,
        403 => Fin::Prohibido,
        _ => Fin::Despues,
    })
}

async fn first_text(stream: &mut Stream) -> Option<Utf8Bytes> {
    loop {
        match stream.next().await?.ok()? {
            Message::Text(text) => return Some(text),
            Message::Close(_) => return None,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

/// What decides.
struct Pump<'a> {
    state: &'a State,
    quien: Principal,
    oyente: Oyente,
    filter: Filter,
    cola: mpsc::Sender<Message>,
}

impl Pump<'_> {
    async fn run(mut self, stream: &mut Stream) -> Fin {
        let parts = self.state.parts();
        // Heard from before the snapshot is read: an event may come twice, none is missed.
        let mut hub = parts.hub.listen();
        if let Err(fin) = self.snapshot(false).await {
            return fin;
        }
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until = self.oyente.caduca.since(parts.clock.now());
        let expiry = tokio::time::sleep(until);
        tokio::pin!(expiry);
        let (mut heard, mut behind) = (Instant::now(), false);
        let cola = self.cola.clone();
        loop {
            let next = tokio::select! {
                () = self.state.0.stop.cancelled() => Err(Fin::Parada),
                () = &mut expiry => Err(Fin::Sesion),
                revoked = self.oyente.revocados.recv() => self.still_in(revoked).await,
                said = stream.next() => {
                    heard = Instant::now();
                    self.hear(said)
                }
                now = ping.tick() => self.ping(now.duration_since(heard)),
                // The queue is empty again: the client has read what waited.
                permits = cola.reserve_many(cola.max_capacity()), if behind => {
                    drop(permits);
                    behind = false;
                    hub = parts.hub.listen();
                    self.snapshot(true).await
                }
                evento = hub.recv(), if !behind => {
                    behind = match evento {
                        Ok(evento) => !self.send(&evento) || !self.send_waiting(&mut hub),
                        Err(RecvError::Lagged(_)) => true,
                        Err(RecvError::Closed) => return Fin::Parada,
                    };
                    if behind {
                        counter!("alertrace_websocket_resyncs_total").increment(1);
                    }
                    Ok(())
                }
            };
            if let Err(fin) = next {
                return fin;
            }
        }
    }

    /// As [`Self::send`], all that has come meanwhile: with many sockets, waking each for every event
    /// costs more than the event.
    fn send_waiting(&self, hub: &mut Receiver<Arc<Evento>>) -> bool {
        /// What the client says is heard in between.
        const AT_MOST: usize = 64;
        for _ in 0..AT_MOST {
            match hub.try_recv() {
                Ok(evento) if self.send(&evento) => {}
                Ok(_) | Err(TryRecvError::Lagged(_)) => return false,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return true,
            }
        }
        true
    }

    /// Puts an event into the queue when the client may see it and wants it; `false` = no room.
    fn send(&self, evento: &Evento) -> bool {
        let visible = self.state.parts().directorio.puede_ver(&self.quien, &evento.sensor);
        if !visible || !self.filter.wants(evento) {
            return true;
        }
        match Utf8Bytes::try_from(evento.json()) {
            Ok(text) => self.cola.try_send(Message::Text(text)).is_ok(),
            // serde_json writes UTF-8.
            Err(_) => true,
        }
    }

    /// Everything that the client may see and wants, as it is now. The queue is empty when this is
    /// called, so there is room.
    async fn snapshot(&self, again: bool) -> Result<(), Fin> {
        let parts = self.state.parts();
        let mut sensores = self.sensores().await.map_err(|e| {
            tracing::warn!(error = %e, "a WebSocket got no snapshot");
            Fin::Despues
        })?;
        sensores.retain(|s| self.filter.wants_sensor(s.quien.id_sensor));
        let sensores: Vec<_> = sensores.into_iter().map(|s| SensorBody::new(s, &parts.presencia)).collect();
        if again {
            let _ = self.cola.try_send(Frame::Resync.message());
        }
        let _ = self.cola.try_send(Frame::Snapshot { sensores: &sensores }.message());
        Ok(())
    }

    async fn sensores(&self) -> store::Result<Vec<sensores::Sensor>> {
        let en_uso = sensores::Filtro { activo: Some(true), ..sensores::Filtro::default() };
        let mut tx = self.state.parts().store.read().await?;
        let (found, _) = sensores::list(&mut tx, self.oyente.alcance, &en_uso, &store::Hoja::TODO).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// A message of the client. What is neither `subscribe` nor a close says nothing to us (front
    /// ends send pings of their own).
    fn hear(&mut self, said: Option<Result<Message, axum::Error>>) -> Result<(), Fin> {
        let text = match said {
            None | Some(Err(_) | Ok(Message::Close(_))) => return Err(Fin::Ido),
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(_)) => return Ok(()),
        };
        if serde_json::from_str::<Said>(&text).is_ok_and(|s| s.tipo == "subscribe") {
            self.filter = Filter::from_message(&text).ok_or(Fin::Mensaje)?;
        }
        Ok(())
    }

    /// Tick of the ping. The clock is asked too: it may have been set since the timer was.
    fn ping(&self, silence: Duration) -> Result<(), Fin> {
        if self.state.parts().clock.now() >= self.oyente.caduca {
            return Err(Fin::Sesion);
        }
        if silence > SILENCE {
            return Err(Fin::Ido);
        }
        // No room: what waits will show whether the client is there.
        let _ = self.cola.try_send(Message::Ping(bytes::Bytes::new()));
        Ok(())
    }

    /// Whether the person is still let in, after somebody was cut off.
    async fn still_in(&self, revoked: Result<Revocado, RecvError>) -> Result<(), Fin> {
        match revoked {
            Ok(Revocado::Usuario(user_id)) if user_id == self.oyente.usuario.user_id => Err(Fin::Sesion),
            Ok(_) => Ok(()),
            Err(RecvError::Closed) => Err(Fin::Parada),
            // It may have been us among those that were missed.
            Err(RecvError::Lagged(_)) => match self.state.parts().cuentas.usuario(&self.oyente.token).await {
                Ok(_) => Ok(()),
                Err(cuentas::Error::Store(_)) => Err(Fin::Despues),
                Err(_) => Err(Fin::Sesion),
            },
        }
    }
}
