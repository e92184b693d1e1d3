//! What the client says: messages, subscriptions, its part of the QoS 2 handshake.

use std::sync::Arc;

use metrics::counter;

use super::acks::{Acuse, Atascado, Espera, Lectura, Que, Respuesta};
use super::{Conexion, Fin};
use crate::domain::{DeviceId, SensorRef};
use crate::identity::{Principal, prueba};
use crate::ingest::{Cambios, Mensaje, NoTomado, decode};
use crate::mqtt::acl::{self, Publicar};
use crate::mqtt::comandos;
use crate::mqtt::enlace;
use crate::mqtt::protocol::{Cierre, Entrante, Pedido, Razon};
use crate::mqtt::publicacion::{Publicacion, Qos};
use crate::mqtt::reparto::Entregable;
use crate::mqtt::retained::Retained;
use crate::mqtt::session::Entrega;
use crate::mqtt::throttle::limita;
use crate::mqtt::topic;
use crate::store::mqtt::Cambio;

/// Retained messages that are looked at in the time that a message takes.
const MIRADOS: usize = 128;

impl Conexion {
    pub(super) async fn paquete(&mut self, paquete: Entrante) -> Result<(), Fin> {
        match paquete {
            Entrante::Publish { publicacion, pid, dup } => self.publish(publicacion, pid, dup).await,
            Entrante::Puback(pid) | Entrante::Pubcomp(pid) | Entrante::Pubrec { pid, falla: true } => {
                self.completa(pid);
                Ok(())
            }
            Entrante::Pubrec { pid, falla: false } => self.pubrec(pid),
            Entrante::Pubrel(pid) => {
                let conocido = self.estado.recibidos.remove(&pid);
                let cambio = self.sesion.id_sesion.map(|id_sesion| Cambio::Suelta { id_sesion, pid });
                // Forgotten for good before the client may use the id again.
                let cambios: Vec<_> = cambio.filter(|_| conocido).into_iter().collect();
                self.encarga(Que::Completa { pid, conocido }, cambios)
            }
            // Boxed, as all that is rare: a connection is mostly idle, and holds room for the rest.
            Entrante::Subscribe { pid, pedidos } => Box::pin(self.subscribe(pid, pedidos)).await,
            Entrante::Unsubscribe { pid, filtros } => self.unsubscribe(pid, &filtros),
            Entrante::Pingreq => Ok(()),
            Entrante::Disconnect { testamento, expiry } => {
                if let Some(expiry) = expiry {
                    // A session that was to end with its connection stays so [MQTT-3.14.2-2].
                    if self.expiry == 0 && expiry > 0 {
                        return Err(Fin::Cortada(Cierre::Protocolo));
                    }
                    self.expiry = expiry.min(self.b.parts.settings.max_session_expiry);
                }
                Err(Fin::Adios { testamento })
            }
            Entrante::Connect(_) | Entrante::Auth => Err(Fin::Cortada(Cierre::Protocolo)),
        }
    }

    /// The client has a QoS 2 message: it is not sent again, whatever happens [MQTT-4.3.3-4].
    fn pubrec(&mut self, pid: u16) -> Result<(), Fin> {
        let mut cambios = Vec::new();
        if let Some(vuelo) = self.estado.en_vuelo.iter_mut().find(|v| v.pid == pid) {
            vuelo.liberado = true;
            let guardada = self.sesion.id_sesion.zip(vuelo.entrega.seq);
            cambios.extend(guardada.map(|(id_sesion, seq)| Cambio::Recibida { id_sesion, seq }));
        }
        self.encarga(Que::Libera { pid }, cambios)
    }

    /// A message of the client: refused, or on its way to the store and the subscribers. Its
    /// acknowledgement joins the queue.
    async fn publish(
        &mut self,
        mut publicacion: Publicacion,
        pid: Option<u16>,
        dup: bool,
    ) -> Result<(), Fin> {
        counter!("alertrace_mqtt_publish_received_total").increment(1);
        self.freno.mensajes(1);
        self.suma(|c| &c.recibidos, 1);
        if !topic::nombre_valido(&publicacion.topic) {
            return Err(Fin::Cortada(Cierre::TopicInvalido));
        }
        if pid.is_some() && self.protocol.cinco() && self.sin_completar() >= self.max_en_vuelo() {
            // [MQTT-3.3.4-9] binds the client; 3.1.1 knows no such limit and is held up instead.
            limita("receive_maximum");
            return Err(Fin::Cortada(Cierre::VentanaExcedida));
        }
        publicacion.publicador = self.sesion.id;
        let (qos, s) = (publicacion.qos, &self.b.parts.settings);
        if topic::excede(&publicacion.topic, s) {
            limita("topic");
            let detalle = Some("topic too long or too deep".into());
            return self.encarga(Que::Negado { pid, qos, razon: Razon::TopicInvalido, detalle }, Vec::new());
        }
        match acl::publica(&self.principal, &publicacion.topic) {
            Publicar::Negado => {
                counter!("alertrace_mqtt_publish_refused_total", "reason" => "not_authorized").increment(1);
                let (client_id, topic) = (&self.sesion.clave.client_id, &publicacion.topic);
                tracing::debug!(client_id, topic, "publish refused");
                if let Principal::Dispositivo(sensor) = &self.principal {
                    let cuerpo = serde_json::json!({ "motivo": "no_autorizado", "topic": topic });
                    let topic = format!("sensores/{}/errores", sensor.device_id);
                    self.b.avisa(Publicacion::del_servidor(topic, cuerpo.to_string(), Qos::Uno, false)).await;
                }
                self.encarga(Que::Negado { pid, qos, razon: Razon::NoAutorizado, detalle: None }, Vec::new())
            }
            Publicar::Rutear => {
                publicacion.sensor = self.dispositivo().map(|s| s.id_sensor);
                let (reparto, cabe) = self.b.reparto(publicacion);
                if !cabe {
                    limita("max_retained");
                }
                let razon = if cabe { Razon::Exito } else { Razon::Cuota };
                let mut otros = Vec::new();
                if let Some(sensor) = self.dispositivo() {
                    // All that a device may have routed: `respuestas`.
                    let ahora = self.b.parts.clock.now();
                    otros.extend(comandos::respuesta(sensor, &reparto.publicacion.payload, ahora));
                }
                if let (Qos::Dos, Some(pid), Some(id_sesion), Razon::Exito) =
                    (qos, pid, self.sesion.id_sesion, razon)
                {
                    otros.push(Cambio::Toma { id_sesion, pid });
                }
                let (cambios, entregable) = reparto.parte(&self.b.fila, otros);
                self.encarga(Que::Tomado { pid, qos, razon, entregable: Box::new(entregable) }, cambios)
            }
            Publicar::Ingerir(sensor) => self.ingiere(sensor, publicacion, pid, dup),
            Publicar::Probar => self.prueba(publicacion, pid),
        }
    }

    /// What `alertrace doctor` publishes: read as a reading is, and committed by the same writer, in a row beside
    /// retained messages that nobody is told of. An empty one removes it; a row that is left goes with its time.
    fn prueba(&mut self, publicacion: Publicacion, pid: Option<u16>) -> Result<(), Fin> {
        let (b, qos) = (self.b.clone(), publicacion.qos);
        let leida = b.parts.ingest.hora().map_err(|e| e.to_string()).and_then(|ahora| {
            let de = DeviceId::new("doctor").map_err(|e| e.to_string())?;
            let leida = decode::decode(&publicacion.payload, &de, ahora, &b.parts.settings.limites);
            let entera = leida.rechazos.is_empty() || publicacion.payload.is_empty();
            entera.then_some(ahora).ok_or_else(|| String::from("it is not a reading"))
        });
        let ahora = match leida {
            Ok(ahora) => ahora,
            Err(e) => {
                let que = Que::Negado { pid, qos, razon: Razon::CargaInvalida, detalle: Some(e) };
                return self.encarga(que, Vec::new());
            }
        };
        let guardada = Publicacion { expira: Some(ahora.plus(prueba::DURA)), ..publicacion };
        let cambio = Retained::cambio(&guardada);
        let (reparto, _) = b.reparto(Publicacion { retain: false, ..guardada });
        let (cambios, entregable) = reparto.parte(&b.fila, [cambio]);
        let entregable = Box::new(entregable);
        self.encarga(Que::Tomado { pid, qos, razon: Razon::Exito, entregable }, cambios)
    }

    /// The device whose connection it is.
    fn dispositivo(&self) -> Option<&SensorRef> {
        match &self.principal {
            Principal::Dispositivo(sensor) => Some(sensor),
            _ => None,
        }
    }

    /// Readings go to the writer first.
    fn ingiere(
        &mut self,
        sensor: SensorRef,
        publicacion: Publicacion,
        pid: Option<u16>,
        dup: bool,
    ) -> Result<(), Fin> {
        let (b, qos, payload) = (self.b.clone(), publicacion.qos, publicacion.payload.clone());
        let (reparto, _) = b.reparto(Publicacion { retain: false, ..publicacion });
        // No packet id is kept of a reading: repeated, it is known by its moment.
        let al_aceptar = reparto.cambios();
        let que = Que::Leido { pid, qos, lectura: Box::new(Lectura { sensor: sensor.clone(), reparto }) };
        let Ok(ahora) = b.parts.ingest.hora() else {
            let entregando = Box::pin(async move {
                let ahora = b.parts.ingest.espera_hora().await;
                let mensaje = Mensaje { al_aceptar, ..b.lee(&sensor, &payload, dup, ahora) };
                Ok(Espera::Lecturas(Respuesta::Por(b.parts.ingest.submit(mensaje).await?)))
            });
            self.atasca(Atascado { desde: self.medida(&que), que, entregando });
            return Ok(());
        };
        self.adelanta();
        let mensaje = Mensaje { al_aceptar, ..b.lee(&sensor, &payload, dup, ahora) };
        match b.parts.ingest.try_submit(mensaje) {
            Ok(respuesta) => self.espera(que, Espera::Lecturas(Respuesta::Por(respuesta))),
            Err(NoTomado::Cerrado) => return Err(Fin::Apagado),
            Err(NoTomado::Lleno(mensaje)) => {
                let entregando = Box::pin(async move {
                    Ok(Espera::Lecturas(Respuesta::Por(b.parts.ingest.submit(*mensaje).await?)))
                });
                self.atasca(Atascado { desde: self.medida(&que), que, entregando });
            }
        }
        Ok(())
    }

    /// Queues what the client is to be told once `cambios` are committed.
    fn encarga(&mut self, que: Que, cambios: impl Into<Cambios>) -> Result<(), Fin> {
        let mut cambios = cambios.into();
        let publica = matches!(que, Que::Tomado { qos: Qos::Uno | Qos::Dos, .. });
        // Whoever acts on messages and says so is not to be given them again once it is told that this was taken.
        let antes = if publica { self.sesion.toma_anotados() } else { Vec::new() };
        let cuantos = antes.len();
        if cuantos > 0 {
            cambios.cambios.splice(..0, antes);
        }
        if cambios.cambios.is_empty() && !(publica && self.limpiando.is_some()) {
            self.espera(que, Espera::Turno);
            return Ok(());
        }
        // Nobody is told of a QoS 0 message, so nobody waits for what is kept of it, but for its turn in the line.
        let nadie_espera = matches!(&que, Que::Tomado { qos: Qos::Cero, entregable, .. }
            if matches!(**entregable, Entregable::Suelto(_)));
        match self.b.parts.ingest.try_guardar(cambios) {
            Ok(_) if nadie_espera => self.espera(que, Espera::Turno),
            Ok(respuesta) => self.espera(que, Espera::Guardado(Respuesta::Por(respuesta))),
            Err(NoTomado::Cerrado) => return Err(Fin::Apagado),
            Err(NoTomado::Lleno(mut cambios)) => {
                // What is stuck may be given up, and this not.
                self.sesion.devuelve_anotados(cambios.cambios.drain(..cuantos).collect());
                let ingest = self.b.parts.ingest.clone();
                let entregando =
                    Box::pin(
                        async move { Ok(Espera::Guardado(Respuesta::Por(ingest.guardar(cambios).await?))) },
                    );
                self.atasca(Atascado { desde: self.medida(&que), que, entregando });
            }
        }
        Ok(())
    }

    fn espera(&mut self, que: Que, espera: Espera) {
        self.retenido_bytes += super::acks::bytes(&que);
        let desde = self.medida(&que);
        self.acuses.push_back(Acuse { que, espera, desde });
    }

    /// The moment, if what comes now is one of those whose wait is measured.
    fn medida(&self, que: &Que) -> Option<tokio::time::Instant> {
        // The message has been counted already: the first of a connection is one of them.
        let n = self.cliente.cuentas.recibidos.load(std::sync::atomic::Ordering::Relaxed);
        (que.de_mensaje().is_some() && n % super::acks::MEDIDO == 1).then(tokio::time::Instant::now)
    }

    fn atasca(&mut self, atascado: Atascado) {
        self.retenido_bytes += super::acks::bytes(&atascado.que);
        self.atascado = Some(atascado);
    }

    async fn subscribe(&mut self, pid: u16, pedidos: Vec<Pedido>) -> Result<(), Fin> {
        let (mut resultados, mut cambios, mut retenidos) = (Vec::new(), Vec::new(), Vec::new());
        let s = &self.b.parts.settings;
        let (max_filtros, max_retenidos) =
            (s.max_subscriptions, s.max_retained.max(self.b.retained.cuantos()));
        for pedido in pedidos {
            // A packet has room for a hundred thousand filters, and each may find all that is retained.
            let de_mas = resultados.len() >= max_filtros;
            if de_mas || self.retenidos.len() + retenidos.len() > max_retenidos {
                limita(if de_mas { "max_subscriptions" } else { "max_retained" });
                resultados.push(Err(Razon::Cuota));
                continue;
            }
            let (resultado, antes) = (self.suscribe(&pedido).await?, retenidos.len());
            let mut mirados = 0;
            if let Ok(nueva) = resultado {
                cambios.extend(self.sesion.guarda(&pedido));
                let suyos;
                (suyos, mirados) = self.retenidos_de(&pedido, nueva);
                for entrega in suyos {
                    cambios.extend(self.sesion.encola(&entrega));
                    retenidos.push(entrega);
                }
            }
            // What a filter finds is as much work as so many messages; what it does not, less.
            self.freno.mensajes(1 + retenidos.len() - antes + mirados / MIRADOS);
            resultados.push(resultado.map(|_| pedido.qos));
        }
        self.encarga(Que::Suscrito { pid, resultados, retenidos }, cambios)
    }

    /// Makes one subscription; answers whether it is new.
    async fn suscribe(&mut self, pedido: &Pedido) -> Result<Result<bool, Razon>, Fin> {
        let (b, s) = (self.b.clone(), &self.b.parts.settings);
        let compartido = topic::compartido(&pedido.filtro);
        let filtro = compartido.map_or(pedido.filtro.as_str(), |(_, f)| f);
        if pedido.filtro.starts_with("$share/") && !topic::grupo_valido(&pedido.filtro)
            || !topic::filtro_valido(filtro)
        {
            return Ok(Err(Razon::TopicInvalido));
        }
        if pedido.filtro.len() > s.max_topic_bytes || topic::excede(filtro, s) {
            limita("topic");
            return Ok(Err(Razon::TopicInvalido));
        }
        // [MQTT-3.8.3-4]
        if compartido.is_some() && pedido.no_local {
            return Err(Fin::Cortada(Cierre::Protocolo));
        }
        if !acl::suscribe(&self.principal, filtro, &b.parts.directorio) {
            counter!("alertrace_mqtt_subscribe_refused_total").increment(1);
            return Ok(Err(Razon::NoAutorizado));
        }
        if compartido.is_some()
            && let Some(cual) = b.sessions.sin_sitio_para(&self.sesion, &pedido.filtro, s.max_filters)
        {
            limita(cual);
            return Ok(Err(Razon::Cuota));
        }
        if self.principal == Principal::Anonimo && s.open_refused.iter().any(|f| f == filtro) {
            return Ok(Err(Razon::Interno));
        }
        // First ours, then the router's: what it forwards finds the subscription.
        let Some(nueva) = self.sesion.suscribe(pedido.clone(), s.max_subscriptions) else {
            limita("max_subscriptions");
            return Ok(Err(Razon::Cuota));
        };
        if topic::por_router(&pedido.filtro) {
            enlace::enlaza(&b, &self.sesion, &mut self.estado.emisor)
                .await
                .map_err(|_| Fin::Cortada(Cierre::Interno))?;
            if !self.estado.emisor.as_mut().is_some_and(|e| e.subscribe(&pedido.filtro)) {
                self.sesion.desuscribe(&pedido.filtro);
                return Ok(Err(Razon::Cuota));
            }
        }
        b.sessions.indice.pon(&self.sesion, &pedido.filtro);
        Ok(Ok(nueva))
    }

    /// What is retained for a subscription, and how many messages that took to find: Retain Handling [MQTT-3.3.1-9] to
    /// [MQTT-3.3.1-11]; nothing for a shared one.
    fn retenidos_de(&self, pedido: &Pedido, nueva: bool) -> (Vec<Entrega>, usize) {
        let quiere = pedido.retain == 0 || (pedido.retain == 1 && nueva);
        if !quiere || topic::compartido(&pedido.filtro).is_some() {
            return (Vec::new(), 0);
        }
        let (b, ahora) = (&self.b, self.b.parts.clock.now());
        let puede =
            |p: &Arc<Publicacion>| acl::entrega(&self.principal, &p.topic, p.sensor, &b.parts.directorio);
        let entrega = |publicacion: Arc<Publicacion>| {
            self.sesion.numera(Entrega {
                qos: publicacion.qos.min(pedido.qos),
                publicacion,
                retain: true,
                ids: pedido.id.into_iter().collect(),
                seq: None,
                grupo: None,
            })
        };
        let guardada = self.sesion.id_sesion.is_some() && pedido.qos > Qos::Cero;
        let (hallados, mirados) = if guardada {
            b.retained.para_guardada(&pedido.filtro, ahora)
        } else {
            b.retained.para(&pedido.filtro, ahora)
        };
        (hallados.into_iter().filter(puede).map(entrega).collect(), mirados)
    }

    fn unsubscribe(&mut self, pid: u16, filtros: &[String]) -> Result<(), Fin> {
        let (mut habia, mut cambios) = (Vec::with_capacity(filtros.len()), Vec::new());
        self.freno.mensajes(filtros.len());
        for filtro in filtros {
            if let Some(emisor) = &mut self.estado.emisor {
                emisor.unsubscribe(filtro);
            }
            self.b.sessions.indice.quita(&self.sesion, filtro);
            let hay = self.sesion.desuscribe(filtro);
            habia.push(hay);
            // What is not there costs the writer nothing, however many a packet names.
            let id_sesion = self.sesion.id_sesion.filter(|_| hay);
            cambios.extend(id_sesion.map(|id| Cambio::Desuscribe { id_sesion: id, filtro: filtro.clone() }));
        }
        self.encarga(Que::Desuscrito { pid, habia }, cambios)
    }
}
