//! The life of one WebSocket: let in, snapshot, events, and a close that says why.
//!
//! Two futures of one task share it. The pump decides and never waits for the client; the writer sends what the
//! pump says, and the events that [`Fanout`](super::Fanout) puts into a bounded queue. The queue of a client
//! that lets it fill ends there: it misses events, and once it has read what waits it gets `resync`, a new
//! snapshot and a new queue.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use metrics::{gauge, histogram};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::fanout::{Membership, Queued};
use super::filter::Filter;
use super::{Oyente, State};
use crate::api::shapes::SensorBody;
use crate::identity::Revocado;
use crate::store::{self, sensores};

/// For the first message, when no token came with the request.
const AUTH_DEADLINE: Duration = Duration::from_secs(5);
/// Between two pings.
const PING: Duration = Duration::from_secs(30);
/// A client that has not been heard for this long has gone: two pings and some.
const SILENCE: Duration = Duration::from_secs(75);
/// For the close handshake.
const GOODBYE: Duration = Duration::from_secs(1);
/// Of the pump's own words, those that may wait for the writer: a ping, and a new beginning.
const SAID: usize = 4;
/// Events that are written together.
const TOGETHER: usize = 64;

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

/// What the server says by itself; events come ready.
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
            let ((say, said), ended) = (mpsc::channel(SAID), Notify::new());
            let pump = Pump { state, oyente, filter, say, ended: &ended };
            tokio::select! {
                fin = pump.run(&mut stream) => fin,
                _ = write(&mut sink, said, &ended) => Fin::Ido,
            }
        }
        Err(fin) => fin,
    };
    goodbye(sink, stream, fin).await;
}

/// What the pump has for the writer.
enum Say {
    Message(Message),
    /// What follows are these events.
    Events(mpsc::Receiver<Queued>),
}

/// Sends what there is, until the client is gone; `ended` is told when the events have come to their end.
async fn write(sink: &mut Sink, mut said: mpsc::Receiver<Say>, ended: &Notify) -> Result<(), axum::Error> {
    let (mut events, mut batch) = (None::<mpsc::Receiver<Queued>>, Vec::with_capacity(TOGETHER));
    loop {
        let some = async {
            match &mut events {
                Some(events) => events.recv_many(&mut batch, TOGETHER).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            say = said.recv() => match say {
                Some(Say::Message(message)) => sink.send(message).await?,
                Some(Say::Events(queue)) => events = Some(queue),
                None => return Ok(()),
            },
            count = some => {
                if count == 0 {
                    events = None;
                    ended.notify_one();
                }
                // One write for all of them.
                let oldest = batch.first().map(|queued: &Queued| queued.since);
                for queued in batch.drain(..) {
                    sink.feed(Message::Text(queued.text)).await?;
                }
                sink.flush().await?;
                if let Some(since) = oldest {
                    histogram!("alertrace_websocket_lag_seconds").record(since.elapsed());
                }
            }
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
    oyente: Oyente,
    filter: Filter,
    say: mpsc::Sender<Say>,
    /// Told by the writer when the queue of events has ended and all of it was sent.
    ended: &'a Notify,
}

impl Pump<'_> {
    async fn run(mut self, stream: &mut Stream) -> Fin {
        let parts = self.state.parts();
        let mut membership = match self.begin(false).await {
            Ok(membership) => membership,
            Err(fin) => return fin,
        };
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until = self.oyente.caduca.since(parts.clock.now());
        let expiry = tokio::time::sleep(until);
        tokio::pin!(expiry);
        let mut heard = Instant::now();
        loop {
            let next = tokio::select! {
                () = self.state.0.stop.cancelled() => Err(Fin::Parada),
                () = &mut expiry => Err(Fin::Sesion),
                revoked = self.oyente.revocados.recv() => self.still_in(revoked).await,
                said = stream.next() => {
                    heard = Instant::now();
                    self.hear(said, &membership)
                }
                now = ping.tick() => self.ping(now.duration_since(heard)),
                () = self.ended.notified() => self.begin(true).await.map(|anew| membership = anew),
            };
            if let Err(fin) = next {
                return fin;
            }
        }
    }

    /// Everything that the client may see and wants, as it is now, and then what happens. It listens before
    /// the snapshot is read: an event may come twice, none is missed.
    async fn begin(&self, again: bool) -> Result<Membership, Fin> {
        let parts = self.state.parts();
        let capacity = parts.settings.socket_queue.max(2);
        let (membership, events) =
            self.state.0.fanout.join(self.oyente.alcance, self.filter.clone(), capacity);
        let mut sensores = self.sensores().await.map_err(|e| {
            tracing::warn!(error = %e, "a WebSocket got no snapshot");
            Fin::Despues
        })?;
        sensores.retain(|s| self.filter.wants_sensor(s.quien.id_sensor));
        let sensores: Vec<_> = sensores.into_iter().map(|s| SensorBody::new(s, &parts.presencia)).collect();
        let snapshot = Frame::Snapshot { sensores: &sensores }.message();
        let resync = again.then(|| Say::Message(Frame::Resync.message()));
        for say in resync.into_iter().chain([Say::Message(snapshot), Say::Events(events)]) {
            // There is room: at most a ping waits of what was said before.
            self.say.try_send(say).map_err(|_| Fin::Ido)?;
        }
        Ok(membership)
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
    fn hear(
        &mut self,
        said: Option<Result<Message, axum::Error>>,
        membership: &Membership,
    ) -> Result<(), Fin> {
        let text = match said {
            None | Some(Err(_) | Ok(Message::Close(_))) => return Err(Fin::Ido),
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(_)) => return Ok(()),
        };
        if serde_json::from_str::<Said>(&text).is_ok_and(|s| s.tipo == "subscribe") {
            self.filter = Filter::from_message(&text).ok_or(Fin::Mensaje)?;
            membership.narrow(self.filter.clone());
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
        // What waits already will show whether the client is there.
        if self.say.capacity() == SAID {
            let _ = self.say.try_send(Say::Message(Message::Ping(bytes::Bytes::new())));
        }
        Ok(())
    }

    /// Whether the person is still let in, after somebody was cut off.
    async fn still_in(&self, revoked: Result<Revocado, RecvError>) -> Result<(), Fin> {
        match revoked {
            Ok(Revocado::Usuario(user_id)) if user_id == self.oyente.usuario.user_id => Err(Fin::Sesion),
            Ok(Revocado::Sesiones(idas))
                if self.oyente.usuario.sesion.as_ref().is_some_and(|s| idas.contains(&**s)) =>
            {
                Err(Fin::Sesion)
            }
            Ok(_) => Ok(()),
            Err(RecvError::Closed) => Err(Fin::Parada),
            // It may have been us among those that were missed.
            Err(RecvError::Lagged(_)) => match self.state.parts().cuentas.usuario(&self.oyente.token).await {
                Ok(_) => Ok(()),
                Err(e) if e.es_pasajero() => Err(Fin::Despues),
                Err(_) => Err(Fin::Sesion),
            },
        }
    }
}
