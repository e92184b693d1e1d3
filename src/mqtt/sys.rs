//! `$SYS/broker/…`: the broker's own figures, for the operador.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::broker::Compartido;
use super::publicacion::{Publicacion, Qos};

impl Compartido {
    /// Publishes the figures now and then, until the server stops. They are retained in memory alone:
    /// yesterday's are nobody's business.
    pub(super) async fn cuenta_de_si(&self) {
        let desde = Instant::now();
        let mut ronda = interval(self.parts.settings.sys_interval);
        ronda.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ronda.tick().await;
            for (que, cuanto) in self.figuras(desde) {
                let topic = format!("$SYS/broker/{que}");
                let mensaje = Arc::new(Publicacion::del_servidor(topic, cuanto, Qos::Cero, true));
                self.retained.pon_propio(&mensaje);
                // `Parado` ends the process by way of the router's token.
                let _ = self.rutea(mensaje).await;
            }
        }
    }

    fn figuras(&self, desde: Instant) -> Vec<(&'static str, String)> {
        let totales = &self.parts.clientes.totales;
        let n = |cuenta: &AtomicU64| cuenta.load(Ordering::Relaxed).to_string();
        let (conectados, sesiones) = (self.parts.clientes.cuantos(), self.sessions.cuantas());
        vec![
            ("version", format!("alertrace {}", env!("CARGO_PKG_VERSION"))),
            ("uptime", format!("{} seconds", desde.elapsed().as_secs())),
            ("clients/connected", conectados.to_string()),
            ("clients/disconnected", sesiones.saturating_sub(conectados).to_string()),
            ("clients/total", sesiones.max(conectados).to_string()),
            ("publish/messages/received", n(&totales.recibidos)),
            ("publish/messages/sent", n(&totales.enviados)),
            ("publish/messages/refused", n(&totales.rechazados)),
            ("bytes/received", n(&totales.bytes_recibidos)),
            ("bytes/sent", n(&totales.bytes_enviados)),
            ("retained messages/count", self.retained.cuantos().to_string()),
        ]
    }
}
