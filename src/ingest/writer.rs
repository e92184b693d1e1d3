//! The one writer: groups what has arrived while the last commit was being synced (no timer, no
//! fixed batch), commits it, and only then answers.
//!
//! While the store is away nothing is answered and nothing is dropped: the batch is tried again
//! until it commits. A batch that fails for its content is halved until the culprit stands alone
//! and is refused; the others commit. A commit of unknown outcome is followed by a reload, and by a look
//! at what it would have stored: the batch that was committed is not tried again ([`super::duda::Duda`]).

mod intento;
mod negados;
mod ordenes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::batcher::{Ajustes, Encargo, Pendiente, Salud, Trabajo};
use super::lote::Hecho;
use super::mensaje::Resultado;
use super::pulso::Pulso;
use super::reloj::Reloj;
use super::vivo::Vivo;
use crate::domain::Accion;
use crate::realtime::{Hub, Que, Rutas};
use crate::store::{self, Store};
use negados::rechaza;

/// Waits between tries while the store is away: from, to.
const ESPERA: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

pub(super) struct Writer {
    store: Store,
    hub: Hub,
    rutas: Rutas,
    reloj: Arc<Reloj>,
    ajustes: Ajustes,
    vivo: Vivo,
    /// What `vivo` knows may have been overtaken by a commit whose outcome is not known.
    dudoso: bool,
    salud: watch::Sender<Salud>,
    pulso: Arc<Pulso>,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        (hub, rutas): (Hub, Rutas),
        reloj: Arc<Reloj>,
        ajustes: Ajustes,
        vivo: Vivo,
        (salud, pulso): (watch::Sender<Salud>, Arc<Pulso>),
    ) -> Self {
        Self { store, hub, rutas, reloj, ajustes, vivo, dudoso: false, salud, pulso }
    }

    /// Works until `drena` is cancelled and what was taken before is done.
    pub(super) async fn run(mut self, mut llegadas: mpsc::Receiver<Trabajo>, drena: CancellationToken) {
        let mut trabajos = Vec::new();
        let pulso = self.pulso.clone();
        loop {
            pulso.late();
            tokio::select! {
                biased;
                () = drena.cancelled(), if !llegadas.is_closed() => llegadas.close(),
                n = llegadas.recv_many(&mut trabajos, self.ajustes.lote) => {
                    if n == 0 {
                        return;
                    }
                    gauge!("alertrace_ingest_queue").set(u32::try_from(llegadas.len()).unwrap_or(u32::MAX));
                    self.atiende(std::mem::take(&mut trabajos)).await;
                }
                () = pulso.preguntado() => {}
            }
        }
    }

    /// What was received together: runs of messages in batches, commands in their turn.
    async fn atiende(&mut self, trabajos: Vec<Trabajo>) {
        let (mut lote, mut peso) = (Vec::with_capacity(trabajos.len()), 0);
        for trabajo in trabajos {
            match trabajo {
                Trabajo::Guardar(pendiente) => {
                    peso += pendiente.peso();
                    lote.push(pendiente);
                    if peso >= self.ajustes.lote {
                        self.confirma(std::mem::take(&mut lote)).await;
                        peso = 0;
                    }
                }
                orden => {
                    self.confirma(std::mem::take(&mut lote)).await;
                    peso = 0;
                    self.ordena(orden).await;
                }
            }
        }
        self.confirma(lote).await;
    }

    /// Commits a batch, however long that takes, and answers it.
    async fn confirma(&mut self, mut lote: Vec<Pendiente>) {
        lote.retain(|p| !p.abandonado());
        if lote.is_empty() {
            return;
        }
        if lote.iter().any(|p| p.mensaje().is_some()) {
            self.espera_reloj().await;
        }
        let mut partes = VecDeque::from([lote]);
        let mut espera = ESPERA.0;
        // What is remembered has been read again since the last commit.
        let mut releido = false;
        // Of the part that is first, from a commit of unknown outcome until the next turn to write.
        let mut duda = None;
        while let Some(mut parte) = partes.pop_front() {
            if duda.is_none() {
                parte.retain(|p| !p.abandonado());
            }
            if parte.is_empty() {
                continue;
            }
            self.pulso.late();
            let desde = Instant::now();
            let span = tracing::info_span!("batch", messages = parte.len());
            match self.intenta(&mut parte, &mut duda).instrument(span).await {
                Ok(hecho) => {
                    histogram!("alertrace_commit_seconds").record(desde.elapsed());
                    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52")]
                    histogram!("alertrace_commit_messages").record(parte.len() as f64);
                    espera = ESPERA.0;
                    releido = false;
                    self.salud.send_if_modified(|s| std::mem::replace(s, Salud::Listo) != Salud::Listo);
                    self.cierra(parte, hecho).await;
                }
                // An alert that is open already, which we do not know of: the readings are good.
                Err(store::Error::Conflict { .. }) if !releido => {
                    (self.dudoso, releido) = (true, true);
                    partes.push_front(parte);
                }
                Err(e) if e.de_contenido() && parte.len() > 1 && duda.is_none() => {
                    let cola = parte.split_off(parte.len() / 2);
                    partes.push_front(cola);
                    partes.push_front(parte);
                }
                Err(e) => {
                    // The commit may have succeeded all the same.
                    self.dudoso = true;
                    // A refusal is an answer only once it is recorded; a database that cannot record
                    // one is away, whatever it says of the content.
                    let registrado = if e.de_contenido() { Some(self.registra(&parte).await) } else { None };
                    let e = match registrado {
                        Some(Ok(())) => {
                            rechaza(parte, e);
                            continue;
                        }
                        Some(Err(e)) => e,
                        None => e,
                    };
                    self.sin_almacen(&e);
                    partes.push_front(parte);
                    self.pulso.duerme(espera).await;
                    espera = (espera * 2).min(ESPERA.1);
                }
            }
        }
    }

    fn sin_almacen(&self, e: &store::Error) {
        counter!("alertrace_store_errors_total", "of" => "writer").increment(1);
        let nueva = Salud::SinAlmacen(e.to_string());
        if self.salud.send_if_modified(|s| std::mem::replace(s, nueva.clone()) != nueva) {
            tracing::error!(error = %e, "the store is away; nothing is acknowledged until it is back");
        }
    }

    /// The batch is on disk: take over what it made of the sensors, answer, tell.
    async fn cierra(&mut self, parte: Vec<Pendiente>, hecho: Hecho) {
        self.vivo.confirma(hecho.sensores);
        self.reloj.guardada(self.vivo.mas_nueva);
        let (mut aceptadas, mut duplicadas, mut rechazadas) = (0, 0, 0);
        let mut resultados = hecho.resultados.into_iter();
        let mut mensajes = [0_u64; MENSAJES.len()];
        for pendiente in parte {
            // A session that ended meanwhile hears nothing; its device sends again.
            match pendiente.encargo {
                Encargo::Mensaje(_, responde) => {
                    let resultado = resultados.next().unwrap_or_default();
                    aceptadas += u64::from(resultado.aceptadas);
                    duplicadas += u64::from(resultado.duplicadas);
                    rechazadas += resultado.rechazos.len() as u64;
                    mensajes[por_resultado(&resultado)] += 1;
                    let _ = responde.send(resultado);
                }
                Encargo::Cambios(suyos, responde) => {
                    if let Some(luego) = suyos.luego {
                        luego();
                    }
                    let _ = responde.send(Ok(()));
                }
            }
        }
        for (resultado, n) in MENSAJES.into_iter().zip(mensajes).filter(|(_, n)| *n > 0) {
            counter!("alertrace_ingest_messages_total", "result" => resultado).increment(n);
        }
        counter!("alertrace_readings_total", "result" => "stored").increment(aceptadas);
        counter!("alertrace_readings_total", "result" => "duplicate").increment(duplicadas);
        counter!("alertrace_readings_total", "result" => "refused").increment(rechazadas);
        for evento in hecho.eventos {
            if let Que::Alerta(accion, alerta) = &evento.que {
                tracing::info!(id_alerta = alerta.id_alerta, device_id = %alerta.device_id, tipo = alerta.tipo_alerta,
                    severidad = alerta.severidad.as_str(), accion = ?accion, "an alert changed");
                counter!("alertrace_alerts_total", "action" => nombre(*accion)).increment(1);
            }
            self.hub.send(evento);
        }
        for salida in hecho.salidas {
            salida.sale().await;
        }
    }

    /// Holds readings while the machine's clock cannot be right. Most never come this far: whoever
    /// takes them in asks first ([`super::Ingest::hora`]).
    async fn espera_reloj(&self) {
        while let Err(e) = self.reloj.hora() {
            let nueva = Salud::RelojIncorrecto(e.to_string());
            if self.salud.send_if_modified(|s| std::mem::replace(s, nueva.clone()) != nueva) {
                tracing::error!(motivo = %e, "nothing is acknowledged until the clock is set");
            }
            self.pulso.duerme(Duration::from_secs(1)).await;
        }
    }
}

/// What became of messages, as the metrics name it.
const MENSAJES: [&str; 4] = ["stored", "partial", "duplicate", "refused"];

/// Its place in [`MENSAJES`].
fn por_resultado(r: &Resultado) -> usize {
    match (r.aceptadas, r.duplicadas, r.rechazos.is_empty()) {
        (0, 0, _) => 3,
        (0, _, true) => 2,
        (_, _, true) => 0,
        (_, _, false) => 1,
    }
}

const fn nombre(accion: Accion) -> &'static str {
    match accion {
        Accion::Creada => "created",
        Accion::Actualizada => "raised",
        Accion::Resuelta => "resolved",
    }
}
