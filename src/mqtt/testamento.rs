//! Wills [MQTT-3.1.2-8]: in the store from the moment that their owner is let in until they are sent or their
//! owner takes leave, so that a server that ends, however it does, sends them when it is back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::acl::{self, Publicar};
use super::broker::Compartido;
use super::publicacion::{Publicacion, Qos};
use crate::domain::Timestamp;
use crate::identity::Principal;
use crate::ingest::Mensaje;
use crate::store::mqtt::{Cambio, Dueno, Testamento};

/// Wills that are sent at a time after a start: each waits for its commit.
const A_LA_VEZ: usize = 64;

/// A will, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Legado {
    pub(super) mensaje: Publicacion,
    /// Seconds.
    pub(super) espera: u32,
    pub(super) de: Dueno,
}

impl Legado {
    /// One that was kept.
    pub(super) fn guardado(t: Testamento) -> Self {
        Self {
            mensaje: Publicacion::guardada(t.contenido, Qos::de(t.qos), t.retain),
            espera: u32::try_from(t.espera).unwrap_or_default(),
            de: t.dueno,
        }
    }

    /// When it is to be sent, of an owner who is lost at `ahora`.
    pub(super) fn cuando(&self, ahora: Timestamp) -> Timestamp {
        ahora.plus(Duration::from_secs(u64::from(self.espera)))
    }

    /// The change that keeps it.
    pub(super) fn guarda(&self) -> Cambio {
        Cambio::Testa(Box::new(Testamento {
            dueno: self.de.clone(),
            contenido: self.mensaje.contenido(),
            qos: self.mensaje.qos.codigo(),
            retain: self.mensaje.retain,
            espera: self.espera.into(),
            cuando: None,
        }))
    }

    /// The change that notes when it is to be sent.
    pub(super) fn aplaza(&self, cuando: Timestamp) -> Cambio {
        Cambio::AplazaTestamento { de: self.de.clone(), cuando }
    }

    /// The change that forgets it.
    pub(super) fn olvida(&self) -> Cambio {
        Cambio::OlvidaTestamento(self.de.clone())
    }
}

impl Compartido {
    /// Sends a will as if its owner published it now, and forgets it: in one commit, so that it is sent once.
    pub(super) async fn testamento(&self, quien: &Principal, legado: Legado) {
        let olvida = legado.olvida();
        if !self.cumple(quien, legado.mensaje, olvida.clone()).await {
            self.guarda(vec![olvida]).await;
        }
    }

    /// `false` when nothing of it was taken, and it is not forgotten either.
    async fn cumple(&self, quien: &Principal, mut will: Publicacion, olvida: Cambio) -> bool {
        let ahora = self.parts.clock.now();
        will.expira = will.expira.map(|e| ahora.plus(Duration::from_micros(e.micros().unsigned_abs())));
        match acl::publica(quien, &will.topic) {
            Publicar::Rutear => {
                if let Principal::Dispositivo(sensor) = quien {
                    will.sensor = Some(sensor.id_sensor);
                }
                let (reparto, _) = self.reparto(will);
                self.guarda_y_entrega(reparto, [olvida]).await
            }
            Publicar::Ingerir(sensor) => {
                let ahora = self.parts.ingest.espera_hora().await;
                let mensaje = self.lee(&sensor, &will.payload, false, ahora);
                let (reparto, _) = self.reparto(Publicacion { retain: false, ..will });
                let mut al_aceptar = reparto.cambios();
                al_aceptar.push(olvida);
                let mensaje = Mensaje { al_aceptar, ..mensaje };
                let Ok(respuesta) = self.parts.ingest.submit(mensaje).await else { return false };
                let Ok(resultado) = respuesta.await else { return false };
                if resultado.aceptadas > 0 {
                    let _ = self.entrega_suelto(reparto).await;
                }
                self.explica(&sensor, &resultado.rechazos).await;
                resultado.aceptadas > 0
            }
            Publicar::Negado | Publicar::Probar => false,
        }
    }

    /// Sends the wills of those who were there when the server ended.
    pub(super) async fn testamentos_de_antes(self: &Arc<Self>, legados: Vec<(Principal, Legado)>) {
        let envia =
            |(quien, legado): (Principal, Legado)| async move { self.testamento(&quien, legado).await };
        futures_util::stream::iter(legados).for_each_concurrent(A_LA_VEZ, envia).await;
    }
}
