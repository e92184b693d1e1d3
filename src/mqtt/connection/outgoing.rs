//! What the client is told: acknowledgements, from the front of their queue, and deliveries, first
//! those that an earlier connection began.

use metrics::counter;

use super::acks::{self, Espera, Frente, Lectura, Que, Respuesta};
use super::{Conexion, Fin, SALIDA};
use crate::domain::Timestamp;
use crate::identity::Principal;
use crate::ingest::{NoTomado, Resultado};
use crate::mqtt::acl;
use crate::mqtt::broker::Compartido;
use crate::mqtt::protocol::{Cierre, Envio, PorEnviar, Razon};
use crate::mqtt::publicacion::Qos;
use crate::mqtt::session::{self, EnVuelo, Entrega};

impl Conexion {
    /// The writer took what was stuck, or is gone.
    pub(super) fn desatasca(&mut self, tomado: Result<Espera, crate::ingest::Cerrado>) {
        let Some(atascado) = self.atascado.take() else { return };
        let espera = tomado.unwrap_or(Espera::Guardado(Respuesta::Dada(None)));
        self.acuses.push_back(acks::Acuse { que: atascado.que, espera, desde: atascado.desde });
    }

    /// Tells the client what is dealt with, from the front and no further than the first that is not.
    pub(super) async fn acusa(&mut self) -> Result<(), Fin> {
        loop {
            let (que, resultado, guardado) = match acks::toma(&mut self.acuses) {
                Frente::Nada => return Ok(()),
                // Not committed: no acknowledgement, ever.
                Frente::Nunca => return Err(Fin::Apagado),
                Frente::Listo(que, resultado, guardado) => (que, resultado, guardado),
            };
            self.retenido_bytes -= acks::bytes(&que);
            self.di(que, resultado, guardado).await?;
        }
    }

    async fn di(&mut self, que: Que, resultado: Option<Resultado>, guardado: bool) -> Result<(), Fin> {
        match que {
            Que::Negado { pid, qos, razon, detalle } => self.manda(pid, qos, razon, detalle.as_deref()),
            Que::Tomado { pid, qos, .. } if !guardado => {
                self.manda(pid, qos, Razon::Interno, Some("it could not be kept"));
            }
            Que::Tomado { pid, qos, razon, entregable } => {
                self.b.entrega(*entregable).await.map_err(|_| Fin::Cortada(Cierre::Interno))?;
                self.manda(pid, qos, razon, None);
            }
            Que::Leido { pid, qos, lectura } => {
                let resultado = resultado.unwrap_or_default();
                let (razon, detalle) = cuenta(&self.b, *lectura, resultado).await;
                self.manda(pid, qos, razon, detalle.as_deref());
            }
            Que::Suscrito { .. } | Que::Desuscrito { .. } | Que::Libera { .. } | Que::Completa { .. }
                if !guardado =>
            {
                return Err(Fin::Cortada(Cierre::Interno));
            }
            Que::Suscrito { pid, resultados, retenidos } => {
                self.protocol.suback(pid, &resultados, &mut self.salida);
                self.retenidos.extend(retenidos);
                self.pide_lo_suyo();
            }
            Que::Desuscrito { pid, habia } => self.protocol.unsuback(pid, &habia, &mut self.salida),
            Que::Libera { pid } => self.protocol.pubrel(pid, &mut self.salida),
            Que::Completa { pid, conocido } => self.protocol.pubcomp(pid, conocido, &mut self.salida),
        }
        Ok(())
    }

    fn manda(&mut self, pid: Option<u16>, qos: Qos, razon: Razon, detalle: Option<&str>) {
        if razon != Razon::Exito {
            self.suma(|c| &c.rechazados, 1);
        }
        match (qos, pid) {
            (Qos::Uno, Some(pid)) => self.protocol.puback(pid, razon, detalle, &mut self.salida),
            (Qos::Dos, Some(pid)) => {
                if razon == Razon::Exito {
                    self.estado.recibidos.insert(pid);
                }
                self.protocol.pubrec(pid, razon, detalle, &mut self.salida);
            }
            _ => {}
        }
    }

    /// Sends what the client has room for: first what an earlier connection began, in order.
    pub(super) fn entrega(&mut self) {
        let ahora = self.b.parts.clock.now();
        while self.salida.len() < SALIDA.0 {
            if let Some(vuelo) = self.estado.en_vuelo.get(self.reenvio) {
                if vuelo.liberado {
                    self.protocol.pubrel(vuelo.pid, &mut self.salida);
                } else if self.protocol.hay_ventana() {
                    let envio = por_enviar(&vuelo.entrega, true, Some(vuelo.pid), ahora);
                    if self.protocol.publish(&envio, &mut self.salida) == Envio::NoCabe {
                        // This connection takes less than the last one did.
                        let pid = vuelo.pid;
                        self.completa(pid);
                        continue;
                    }
                } else {
                    return;
                }
                self.reenvio += 1;
                continue;
            }
            let ventana = self.protocol.hay_ventana() && self.estado.en_vuelo.len() < self.max_en_vuelo();
            let retenido = self.retenidos.front().is_some_and(|e| ventana || e.qos == Qos::Cero);
            let entrega = if retenido { self.retenidos.pop_front() } else { self.sesion.siguiente(ventana) };
            let Some(entrega) = entrega else { return };
            let p = &entrega.publicacion;
            if p.vencida(ahora)
                || !acl::entrega(&self.principal, &p.topic, p.sensor, &self.b.parts.directorio)
            {
                self.renuncia(&entrega);
                continue;
            }
            let pid = match (entrega.qos, entrega.seq) {
                (Qos::Cero, _) => None,
                (_, Some(seq)) => Some(session::pid(seq)).filter(|pid| self.protocol.retoma_pid(*pid)),
                (_, None) => self.protocol.pid(),
            };
            if entrega.qos > Qos::Cero && pid.is_none() {
                // Its id, or every id, is in flight; the client will complete some.
                self.retenidos.push_front(entrega);
                return;
            }
            let envio = por_enviar(&entrega, false, pid, ahora);
            match (self.protocol.publish(&envio, &mut self.salida), pid) {
                (Envio::Enviado, pid) => {
                    counter!("alertrace_mqtt_publish_sent_total").increment(1);
                    self.suma(|c| &c.enviados, 1);
                    if pid.is_none() {
                        self.anota(&entrega);
                    }
                    if let Some(pid) = pid {
                        self.estado.en_vuelo.push_back(EnVuelo { pid, entrega, liberado: false });
                        self.reenvio = self.estado.en_vuelo.len();
                    }
                }
                (Envio::NoCabe, _) => {
                    counter!("alertrace_mqtt_messages_dropped_total", "reason" => "too_large").increment(1);
                    self.renuncia(&entrega);
                }
            }
        }
    }

    /// A device that hears what people ask of it is given what waits.
    pub(super) fn pide_lo_suyo(&self) {
        if let Principal::Dispositivo(sensor) = &self.principal {
            self.b.parts.pedidos.marca(sensor.id_sensor);
        }
    }

    /// A delivery is completed.
    pub(super) fn completa(&mut self, pid: u16) {
        let Some(i) = self.estado.en_vuelo.iter().position(|v| v.pid == pid) else { return };
        if let Some(vuelo) = self.estado.en_vuelo.remove(i) {
            self.sesion.hecha(vuelo.entrega.seq);
            self.anota(&vuelo.entrega);
        }
        if i < self.reenvio {
            self.reenvio -= 1;
        }
    }

    /// A delivery is given up.
    fn renuncia(&self, entrega: &Entrega) {
        self.sesion.hecha(entrega.seq);
        if let Some(id_comando) = entrega.publicacion.comando {
            self.b.en_curso.quita(id_comando);
        }
    }

    /// A device has what it was sent: its people can see that.
    fn anota(&self, entrega: &Entrega) {
        if let Principal::Dispositivo(sensor) = &self.principal
            && let Some(cambio) = self.b.entregada(sensor, &entrega.publicacion)
        {
            self.sesion.anota(cambio);
        }
    }

    /// Has the store forget what is done with; one request at a time, so that it gathers while the
    /// store is slow. It is bounded by what the store holds for the session.
    pub(super) fn limpia(&mut self) {
        if self.limpiando.is_none() {
            self.adelanta();
        }
    }

    /// As [`Self::limpia`], at once: what the client says next is committed after what it has acknowledged.
    pub(super) fn adelanta(&mut self) {
        let cambios = self.sesion.toma_anotados();
        if cambios.is_empty() {
            return;
        }
        match self.b.parts.ingest.try_guardar(cambios) {
            Ok(respuesta) => self.limpiando = Some(respuesta),
            Err(NoTomado::Lleno(cambios)) => self.sesion.devuelve_anotados(cambios.cambios),
            Err(NoTomado::Cerrado) => {}
        }
    }
}

/// A commit has returned: what was stored is delivered, what was refused is explained. Answers what
/// the acknowledgement says.
pub(super) async fn cuenta(
    b: &Compartido,
    lectura: Lectura,
    resultado: Resultado,
) -> (Razon, Option<String>) {
    let Lectura { sensor, reparto } = lectura;
    if resultado.aceptadas > 0 {
        // `Parado` ends the process by way of the router's token.
        let _ = b.entrega_suelto(reparto).await;
    }
    b.explica(&sensor, &resultado.rechazos).await;
    let Some(primero) = resultado.rechazos.first() else { return (Razon::Exito, None) };
    let detalle = match &primero.variable {
        Some(variable) => {
            format!("{} refused, first: {} ({variable})", resultado.rechazos.len(), primero.motivo.as_str())
        }
        None => format!("{} refused, first: {}", resultado.rechazos.len(), primero.motivo.as_str()),
    };
    let razon = if resultado.rechazado() { Razon::CargaInvalida } else { Razon::Exito };
    (razon, Some(detalle))
}

fn por_enviar(entrega: &Entrega, dup: bool, pid: Option<u16>, ahora: Timestamp) -> PorEnviar<'_> {
    PorEnviar {
        publicacion: &entrega.publicacion,
        qos: entrega.qos,
        retain: entrega.retain,
        dup,
        pid,
        ids: &entrega.ids,
        ahora,
    }
}
