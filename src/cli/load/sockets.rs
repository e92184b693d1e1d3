//! The other end of a load: WebSockets that hear the readings, and how long each took from the moment that
//! it was sent at.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

use super::site::{Device, Site};
use crate::domain::{Clock as _, SystemClock, Timestamp};

/// Microseconds from the send to the arrival; coarse, because there is one for each socket.
type Latencias = Histogram<u32>;

/// What one socket came to.
struct Oido {
    latencias: Latencias,
    /// How often it was told that it had been too slow.
    resyncs: u64,
}

/// Sockets that listen.
pub(super) struct Oyentes {
    tareas: JoinSet<Option<Oido>>,
    parar: CancellationToken,
    cuantos: usize,
}

impl Oyentes {
    /// Opens `cuantos`, each for the readings of one device, in turn, or of `todos`.
    pub(super) async fn open(
        site: &Site,
        devices: &[Device],
        cuantos: usize,
        todos: bool,
    ) -> anyhow::Result<Self> {
        let mut oyentes = Self { tareas: JoinSet::new(), parar: CancellationToken::new(), cuantos };
        for n in 0..cuantos {
            let uno = format!("&sensores={}", devices[n % devices.len()].id_sensor);
            let query = format!("?eventos=lectura{}", if todos { "" } else { &uno });
            let mut request = site.live(&query).into_client_request()?;
            request.headers_mut().insert("authorization", site.bearer().parse()?);
            let (socket, _) = connect_async(request).await.with_context(|| format!("WebSocket {n}"))?;
            let parar = oyentes.parar.clone();
            oyentes.tareas.spawn(async move {
                let (_, mut mensajes) = socket.split();
                let mut oido =
                    Oido { latencias: Latencias::new_with_bounds(1, 60_000_000, 2).ok()?, resyncs: 0 };
                loop {
                    tokio::select! {
                        () = parar.cancelled() => return Some(oido),
                        mensaje = mensajes.next() => match mensaje? {
                            Ok(Message::Text(texto)) => oido.oye(&texto),
                            Ok(_) => {}
                            Err(_) => return None,
                        }
                    }
                }
            });
        }
        Ok(oyentes)
    }

    /// Gives what is under way a moment to arrive, and says what was heard.
    pub(super) async fn report(mut self) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.parar.cancel();
        let mut todas = Histogram::<u64>::new_with_bounds(1, 60_000_000, 2)?;
        let (mut resyncs, mut vivos) = (0, 0);
        while let Some(oido) = self.tareas.join_next().await {
            let Some(oido) = oido? else { continue };
            todas.add(Histogram::<u64>::from(&oido))?;
            resyncs += oido.resyncs;
            vivos += 1;
        }
        let ms = |q: f64| todas.value_at_quantile(q) as f64 / 1_000.0;
        println!(
            "{vivos} of {} sockets heard {} readings: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; {resyncs} resyncs",
            self.cuantos,
            todas.len(),
            ms(0.5),
            ms(0.99),
            ms(1.0)
        );
        anyhow::ensure!(vivos == self.cuantos, "{} sockets were closed", self.cuantos - vivos);
        Ok(())
    }
}

impl Oido {
    fn oye(&mut self, texto: &str) {
        if texto.starts_with(r#"{"type":"resync""#) {
            self.resyncs += 1;
        }
        if !texto.starts_with(r#"{"type":"sensor_update""#) {
            return;
        }
        // Without reading all of it: a thousand sockets share this process's core.
        let Some((_, resto)) = texto.split_once(r#""timestamp":""#) else { return };
        let momento = resto.split('"').next().and_then(Timestamp::parse);
        if let Some(momento) = momento {
            let micros = SystemClock.now().since(momento).as_micros();
            self.latencias.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
        }
    }
}

impl From<&Oido> for Histogram<u64> {
    fn from(oido: &Oido) -> Self {
        let mut todas = Self::new_from(&oido.latencias);
        for paso in oido.latencias.iter_recorded() {
            todas.saturating_record_n(paso.value_iterated_to(), u64::from(paso.count_at_value()));
        }
        todas
    }
}
