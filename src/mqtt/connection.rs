//! One connection, from its CONNECT to its end.
//!
//! Nothing here waits for one thing alone: the loop reads while its window of unacknowledged messages
//! has room, writes what there is to write, sends acknowledgements in the order of the messages
//! [MQTT-4.6.0-2] once their commit has returned, and delivers what the session's mailbox holds. A
//! client that is too slow holds up nobody but itself.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use metrics::counter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use tokio::time::Instant;

use super::acl::{self, Publicar};
use super::broker::Compartido;
use super::protocol::{Cierre, Entrante, Envio, Pedido, PorEnviar, Protocol, Razon};
use super::publicacion::{Publicacion, Qos};
use super::session::{self, EnVuelo, Entrega, Estado, Sesion, Turno};
use super::topic;
use crate::domain::{SensorRef, Timestamp};
use crate::identity::Principal;
use crate::ingest::{Cerrado, NoTomado, Resultado};

/// Bytes waiting to be written beyond which nothing more is delivered, and beyond which nothing
/// more is read either.
const SALIDA: (usize, usize) = (64 << 10, 1 << 20);
/// A client that takes nothing for this long is gone.
const SIN_ESCRIBIR: Duration = Duration::from_secs(60);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Fin {
    /// DISCONNECT; `testamento`: with the will all the same (0x04).
    Adios { testamento: bool },
    /// The network connection is gone.
    Perdida,
    /// The client broke the protocol; the library has said what there is to say.
    Violacion(String),
    /// We end it.
    Cortada(Cierre),
    /// The server stops.
    Apagado,
}

/// A message of the client whose acknowledgement is open.
struct Acuse {
    pid: Option<u16>,
    qos: Qos,
    espera: Espera,
}

enum Espera {
    /// For its commit.
    Commit(Box<Lectura>, Respuesta),
    /// For those before it.
    Turno(Razon, Option<String>),
}

/// A message of readings, and whose.
struct Lectura {
    sensor: SensorRef,
    publicacion: Publicacion,
}

/// The writer's answer, as far as it has come.
enum Respuesta {
    Por(oneshot::Receiver<Resultado>),
    /// `None`: the writer stopped without committing it.
    Dada(Option<Resultado>),
}

impl Respuesta {
    /// Waits for the answer and keeps it. Safe to drop half-way.
    async fn llega(&mut self) {
        if let Self::Por(respuesta) = self {
            let dada = respuesta.await.ok();
            *self = Self::Dada(dada);
        }
    }

    /// Takes the answer if it is there.
    fn toma(&mut self) -> Option<Option<Resultado>> {
        if let Self::Por(respuesta) = self {
            match respuesta.try_recv() {
                Ok(resultado) => *self = Self::Dada(Some(resultado)),
                Err(oneshot::error::TryRecvError::Closed) => *self = Self::Dada(None),
                Err(oneshot::error::TryRecvError::Empty) => return None,
            }
        }
        match self {
            Self::Dada(resultado) => Some(resultado.take()),
            Self::Por(_) => None,
        }
    }
}

/// A message for which the writer has no room yet.
struct Atascado {
    entregando: Pin<Box<dyn Future<Output = Result<oneshot::Receiver<Resultado>, Cerrado>> + Send>>,
    pid: Option<u16>,
    qos: Qos,
    lectura: Box<Lectura>,
}

/// See the module.
pub(super) struct Conexion {
    pub(super) b: Arc<Compartido>,
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: OwnedMutexGuard<Estado>,
    pub(super) principal: Principal,
    protocol: Protocol,
    generacion: u64,
    entrada: BytesMut,
    salida: BytesMut,
    acuses: VecDeque<Acuse>,
    atascado: Option<Atascado>,
    retenidos: VecDeque<Entrega>,
    /// Deliveries of an earlier connection from here on are still to be sent again.
    reenvio: usize,
    keep_alive: Option<Duration>,
    oida: Instant,
    escrita: Instant,
    caduca: Option<Timestamp>,
    /// What DISCONNECT may have set [MQTT-3.14.2-2].
    pub(super) expiry: u32,
    apagando: bool,
}

/// What the handshake settled.
pub(super) struct Inicio {
    pub(super) b: Arc<Compartido>,
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: OwnedMutexGuard<Estado>,
    pub(super) generacion: u64,
    pub(super) principal: Principal,
    pub(super) protocol: Protocol,
    /// Bytes that came after the CONNECT.
    pub(super) entrada: BytesMut,
    /// The CONNACK.
    pub(super) salida: BytesMut,
    /// Seconds; 0 = none.
    pub(super) keep_alive: u16,
    /// When the token that signed in expires.
    pub(super) caduca: Option<Timestamp>,
    pub(super) expiry: u32,
}

impl Conexion {
    pub(super) fn new(i: Inicio) -> Self {
        let ahora = Instant::now();
        let mut protocol = i.protocol;
        // Taken back in order, before anything new has an id [MQTT-4.4.0-1].
        protocol.retoma_recibidos(i.estado.recibidos.iter().copied());
        for vuelo in &i.estado.en_vuelo {
            protocol.retoma_pid(vuelo.pid);
        }
        Self {
            b: i.b,
            sesion: i.sesion,
            estado: i.estado,
            principal: i.principal,
            protocol,
            generacion: i.generacion,
            entrada: i.entrada,
            salida: i.salida,
            acuses: VecDeque::new(),
            atascado: None,
            retenidos: VecDeque::new(),
            reenvio: 0,
            // [MQTT-3.1.2-22]
            keep_alive: (i.keep_alive > 0).then(|| Duration::from_millis(u64::from(i.keep_alive) * 1_500)),
            oida: ahora,
            escrita: ahora,
            caduca: i.caduca,
            expiry: i.expiry,
            apagando: false,
        }
    }

    /// Runs the connection to its end.
    pub(super) async fn run<R, W>(&mut self, lee: &mut R, escribe: &mut W) -> Fin
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut turno = self.sesion.turno.subscribe();
        loop {
            if let Err(fin) = self.avanza(&turno).await {
                return fin;
            }
            if self.apagando && self.acuses.is_empty() && self.atascado.is_none() {
                return Fin::Apagado;
            }
            let puede_leer = !self.detenida() && !self.apagando;
            let puede_entregar = self.salida.len() < SALIDA.0;
            let plazo = self.plazo(puede_leer);
            let (sesion, apaga) = (&self.sesion, &self.b.apaga);
            tokio::select! {
                leido = lee.read_buf(&mut self.entrada), if puede_leer => match leido {
                    Ok(n) if n > 0 => self.oida = Instant::now(),
                    _ => return Fin::Perdida,
                },
                escrito = escribe.write_buf(&mut self.salida), if !self.salida.is_empty() => match escrito {
                    Ok(n) if n > 0 => self.escrita = Instant::now(),
                    _ => return Fin::Perdida,
                },
                () = frente(&mut self.acuses) => {}
                tomado = tomado(&mut self.atascado), if self.atascado.is_some() => self.desatasca(tomado),
                () = sesion.aviso.notified(), if puede_entregar => {}
                _ = turno.changed() => {}
                () = apaga.cancelled(), if !self.apagando => self.apagando = true,
                () = tokio::time::sleep_until(plazo) => {
                    if let Some(fin) = self.vence(puede_leer) {
                        return fin;
                    }
                }
            }
            if !puede_leer {
                // No keep-alive counts against a client that we hold up.
                self.oida = Instant::now();
            }
        }
    }

    /// Everything that can be done without waiting for the network.
    async fn avanza(&mut self, turno: &watch::Receiver<Turno>) -> Result<(), Fin> {
        let Turno { generacion, corte } = *turno.borrow();
        if generacion > self.generacion {
            return Err(Fin::Cortada(Cierre::Relevada));
        }
        if let Some(cierre) = corte {
            return Err(Fin::Cortada(cierre));
        }
        let escrito = self.salida.len();
        self.lee_paquetes().await?;
        self.acusa().await?;
        self.entrega();
        if escrito == 0 {
            // Nothing was waiting to be written until now: the patience starts here.
            self.escrita = Instant::now();
        }
        Ok(())
    }

    /// Whether nothing more is read for now: the window is full, the writer has no room, or the
    /// client does not take what we have for it.
    fn detenida(&self) -> bool {
        self.acuses.len() >= usize::from(self.b.parts.settings.receive_maximum)
            || self.atascado.is_some()
            || self.salida.len() >= SALIDA.1
    }

    /// The next moment at which something must be looked at.
    fn plazo(&self, puede_leer: bool) -> Instant {
        let mut plazo = Instant::now() + Duration::from_secs(30);
        if let Some(keep_alive) = self.keep_alive.filter(|_| puede_leer) {
            plazo = plazo.min(self.oida + keep_alive);
        }
        if !self.salida.is_empty() {
            plazo = plazo.min(self.escrita + SIN_ESCRIBIR);
        }
        if let Some(caduca) = self.caduca {
            plazo = plazo.min(Instant::now() + caduca.since(self.b.parts.clock.now()));
        }
        plazo
    }

    fn vence(&self, puede_leer: bool) -> Option<Fin> {
        let ahora = Instant::now();
        if puede_leer && self.keep_alive.is_some_and(|k| ahora >= self.oida + k) {
            return Some(Fin::Cortada(Cierre::KeepAlive));
        }
        if !self.salida.is_empty() && ahora >= self.escrita + SIN_ESCRIBIR {
            return Some(Fin::Perdida);
        }
        if self.caduca.is_some_and(|c| c <= self.b.parts.clock.now()) {
            return Some(Fin::Cortada(Cierre::Caducada));
        }
        None
    }

    async fn lee_paquetes(&mut self) -> Result<(), Fin> {
        while !self.entrada.is_empty() && !self.detenida() && !self.apagando {
            let (acuses, ahora) = (&self.acuses, self.b.parts.clock.now());
            let sin_confirmar = |pid| acuses.iter().any(|a| a.pid == Some(pid));
            let r = self.protocol.recv(&self.entrada, sin_confirmar, ahora, &mut self.salida);
            self.entrada.advance(r.usados);
            if let Some(paquete) = r.paquete {
                self.paquete(paquete).await?;
            }
            if let Some(error) = r.error {
                return Err(if r.fin { Fin::Violacion(error) } else { Fin::Cortada(Cierre::Protocolo) });
            }
            if r.fin {
                return Err(Fin::Violacion("the connection is over".into()));
            }
        }
        Ok(())
    }

    async fn paquete(&mut self, paquete: Entrante) -> Result<(), Fin> {
        match paquete {
            Entrante::Publish { publicacion, pid, dup } => self.publish(publicacion, pid, dup).await?,
            Entrante::Puback(pid) => self.completa(pid),
            Entrante::Pubrec { pid, falla: true } => self.completa(pid),
            Entrante::Pubrec { pid, falla: false } => {
                if let Some(vuelo) = self.estado.en_vuelo.iter_mut().find(|v| v.pid == pid) {
                    vuelo.liberado = true;
                }
                self.protocol.pubrel(pid, &mut self.salida);
            }
            Entrante::Pubcomp(pid) => self.completa(pid),
            Entrante::Pubrel(pid) => {
                let conocido = self.estado.recibidos.remove(&pid);
                self.protocol.pubcomp(pid, conocido, &mut self.salida);
            }
            Entrante::Subscribe { pid, pedidos } => self.subscribe(pid, pedidos).await?,
            Entrante::Unsubscribe { pid, filtros } => {
                let quita = |filtro: &String| {
                    if let Some(emisor) = &mut self.estado.emisor {
                        emisor.unsubscribe(filtro);
                    }
                    self.sesion.desuscribe(filtro)
                };
                let habia: Vec<bool> = filtros.iter().map(quita).collect();
                self.protocol.unsuback(pid, &habia, &mut self.salida);
            }
            Entrante::Pingreq => {}
            Entrante::Disconnect { testamento, expiry } => {
                if let Some(expiry) = expiry {
                    // A session that was to end with its connection stays so [MQTT-3.14.2-2].
                    if self.expiry == 0 && expiry > 0 {
                        return Err(Fin::Cortada(Cierre::Protocolo));
                    }
                    self.expiry = expiry.min(self.b.parts.settings.max_session_expiry);
                }
                return Err(Fin::Adios { testamento });
            }
            Entrante::Connect(_) | Entrante::Auth => return Err(Fin::Cortada(Cierre::Protocolo)),
        }
        Ok(())
    }

    /// A message of the client: refused, routed, or handed to the writer. Its acknowledgement joins
    /// the queue.
    async fn publish(
        &mut self,
        mut publicacion: Publicacion,
        pid: Option<u16>,
        dup: bool,
    ) -> Result<(), Fin> {
        counter!("alertrace_mqtt_publish_received_total").increment(1);
        if !topic::nombre_valido(&publicacion.topic) {
            return Err(Fin::Cortada(Cierre::TopicInvalido));
        }
        publicacion.publicador = self.sesion.id;
        let (qos, s) = (publicacion.qos, &self.b.parts.settings);
        let mut acuse = |espera| self.acuses.push_back(Acuse { pid, qos, espera });
        if publicacion.topic.len() > s.max_topic_bytes
            || publicacion.topic.split('/').count() > s.max_topic_levels
        {
            acuse(Espera::Turno(Razon::TopicInvalido, Some("topic too long or too deep".into())));
            return Ok(());
        }
        match acl::publica(&self.principal, &publicacion.topic) {
            Publicar::Negado => {
                counter!("alertrace_mqtt_publish_refused_total", "reason" => "not_authorized").increment(1);
                tracing::debug!(
                    client_id = self.sesion.clave.client_id,
                    topic = publicacion.topic,
                    "publish refused"
                );
                acuse(Espera::Turno(Razon::NoAutorizado, None));
                if let Principal::Dispositivo(sensor) = &self.principal {
                    let cuerpo = serde_json::json!({ "motivo": "no_autorizado", "topic": publicacion.topic });
                    let topic = format!("sensores/{}/errores", sensor.device_id);
                    self.b.avisa(Publicacion::del_servidor(topic, cuerpo.to_string(), Qos::Uno, false)).await;
                }
            }
            Publicar::Rutear => {
                let guardada = self.b.rutea(publicacion).await.map_err(|_| Fin::Cortada(Cierre::Interno))?;
                let razon = if guardada { Razon::Exito } else { Razon::Cuota };
                acuse(Espera::Turno(razon, None));
            }
            Publicar::Ingerir(sensor) => {
                let mensaje = self.b.lee(&sensor, &publicacion.payload, dup);
                let lectura = Box::new(Lectura { sensor, publicacion });
                match self.b.parts.ingest.try_submit(mensaje) {
                    Ok(respuesta) => acuse(Espera::Commit(lectura, Respuesta::Por(respuesta))),
                    Err(NoTomado::Cerrado) => return Err(Fin::Apagado),
                    Err(NoTomado::Lleno(mensaje)) => {
                        let ingest = self.b.parts.ingest.clone();
                        let entregando = Box::pin(async move { ingest.submit(*mensaje).await });
                        self.atascado = Some(Atascado { entregando, pid, qos, lectura });
                    }
                }
            }
        }
        Ok(())
    }

    /// The writer took the message that was stuck, or is gone.
    fn desatasca(&mut self, tomado: Result<oneshot::Receiver<Resultado>, Cerrado>) {
        let Some(Atascado { pid, qos, lectura, .. }) = self.atascado.take() else { return };
        let respuesta = tomado.map_or(Respuesta::Dada(None), Respuesta::Por);
        self.acuses.push_back(Acuse { pid, qos, espera: Espera::Commit(lectura, respuesta) });
    }

    /// Acknowledges what is dealt with, from the front and no further than the first that is not.
    async fn acusa(&mut self) -> Result<(), Fin> {
        while let Some(acuse) = self.acuses.front_mut() {
            let resultado = match &mut acuse.espera {
                Espera::Turno(..) => None,
                Espera::Commit(_, respuesta) => match respuesta.toma() {
                    None => break,
                    // Not committed: no acknowledgement, ever.
                    Some(None) => return Err(Fin::Apagado),
                    Some(Some(resultado)) => Some(resultado),
                },
            };
            let Some(acuse) = self.acuses.pop_front() else { break };
            let (razon, detalle) = match (acuse.espera, resultado) {
                (Espera::Commit(lectura, _), Some(resultado)) => cuenta(&self.b, *lectura, resultado).await,
                (Espera::Turno(razon, detalle), _) => (razon, detalle),
                (Espera::Commit(..), None) => break,
            };
            self.manda(acuse.pid, acuse.qos, razon, detalle.as_deref());
        }
        Ok(())
    }

    fn manda(&mut self, pid: Option<u16>, qos: Qos, razon: Razon, detalle: Option<&str>) {
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

    async fn subscribe(&mut self, pid: u16, pedidos: Vec<Pedido>) -> Result<(), Fin> {
        let mut resultados = Vec::with_capacity(pedidos.len());
        for pedido in pedidos {
            resultados.push(self.suscribe(pedido).await?);
        }
        self.protocol.suback(pid, &resultados, &mut self.salida);
        Ok(())
    }

    async fn suscribe(&mut self, pedido: Pedido) -> Result<Result<Qos, Razon>, Fin> {
        let (b, s) = (self.b.clone(), &self.b.parts.settings);
        if pedido.filtro.starts_with("$share/") {
            return Ok(Err(Razon::SinCompartidas));
        }
        if !topic::filtro_valido(&pedido.filtro)
            || pedido.filtro.len() > s.max_topic_bytes
            || pedido.filtro.split('/').count() > s.max_topic_levels
        {
            return Ok(Err(Razon::TopicInvalido));
        }
        if !acl::suscribe(&self.principal, &pedido.filtro, &b.parts.directorio) {
            counter!("alertrace_mqtt_subscribe_refused_total").increment(1);
            return Ok(Err(Razon::NoAutorizado));
        }
        if self.estado.emisor.is_none() {
            let (emisor, receptor) = b.router.link().await.map_err(|_| Fin::Cortada(Cierre::Interno))?;
            let (directorio, clock) = (b.parts.directorio.clone(), b.parts.clock.clone());
            // Ends with the link, which ends with the session's state.
            tokio::spawn(session::escucha(self.sesion.clone(), receptor, directorio, clock));
            self.estado.emisor = Some(emisor);
        }
        // First ours, then the router's: what it forwards finds the subscription.
        let Some(nueva) = self.sesion.suscribe(pedido.clone(), s.max_subscriptions) else {
            return Ok(Err(Razon::Cuota));
        };
        if !self.estado.emisor.as_mut().is_some_and(|e| e.subscribe(&pedido.filtro)) {
            self.sesion.desuscribe(&pedido.filtro);
            return Ok(Err(Razon::Cuota));
        }
        // Retain Handling [MQTT-3.3.1-9] to [MQTT-3.3.1-11].
        if pedido.retain == 0 || (pedido.retain == 1 && nueva) {
            let retenidos = b.retained.para(&pedido.filtro, b.parts.clock.now()).into_iter();
            self.retenidos.extend(retenidos.map(|publicacion| Entrega {
                qos: publicacion.qos.min(pedido.qos),
                publicacion,
                retain: true,
                ids: pedido.id.into_iter().collect(),
            }));
        }
        Ok(Ok(pedido.qos))
    }

    /// Sends what the client has room for: first what an earlier connection began, in order.
    fn entrega(&mut self) {
        let max = usize::from(self.b.parts.settings.receive_maximum);
        let ahora = self.b.parts.clock.now();
        while self.salida.len() < SALIDA.0 {
            if let Some(vuelo) = self.estado.en_vuelo.get(self.reenvio) {
                if vuelo.liberado {
                    self.protocol.pubrel(vuelo.pid, &mut self.salida);
                } else if self.protocol.hay_ventana() {
                    let envio = por_enviar(&vuelo.entrega, true, Some(vuelo.pid), ahora);
                    self.protocol.publish(&envio, &mut self.salida);
                } else {
                    return;
                }
                self.reenvio += 1;
                continue;
            }
            let ventana = self.protocol.hay_ventana() && self.estado.en_vuelo.len() < max;
            let retenido = self.retenidos.front().is_some_and(|e| ventana || e.qos == Qos::Cero);
            let entrega = if retenido { self.retenidos.pop_front() } else { self.sesion.siguiente(ventana) };
            let Some(entrega) = entrega else { return };
            let p = &entrega.publicacion;
            if p.vencida(ahora)
                || !acl::entrega(&self.principal, &p.topic, p.sensor, &self.b.parts.directorio)
            {
                continue;
            }
            let pid = if entrega.qos == Qos::Cero { None } else { self.protocol.pid() };
            if entrega.qos > Qos::Cero && pid.is_none() {
                // Every id is in flight; the client will complete some.
                self.retenidos.push_front(entrega);
                return;
            }
            let envio = por_enviar(&entrega, false, pid, ahora);
            match (self.protocol.publish(&envio, &mut self.salida), pid) {
                (Envio::Enviado, pid) => {
                    counter!("alertrace_mqtt_publish_sent_total").increment(1);
                    if let Some(pid) = pid {
                        self.estado.en_vuelo.push_back(EnVuelo { pid, entrega, liberado: false });
                        self.reenvio = self.estado.en_vuelo.len();
                    }
                }
                (Envio::NoCabe, _) => {
                    counter!("alertrace_mqtt_messages_dropped_total", "reason" => "too_large").increment(1);
                }
            }
        }
    }

    /// A delivery is completed.
    fn completa(&mut self, pid: u16) {
        let Some(i) = self.estado.en_vuelo.iter().position(|v| v.pid == pid) else { return };
        self.estado.en_vuelo.remove(i);
        if i < self.reenvio {
            self.reenvio -= 1;
        }
    }

    /// Says why the connection ends, and takes back what it wrote for that.
    pub(super) fn despide(&mut self, fin: &Fin) -> BytesMut {
        match fin {
            Fin::Cortada(cierre) => self.protocol.disconnect(*cierre, &mut self.salida),
            Fin::Apagado => self.protocol.disconnect(Cierre::Apagado, &mut self.salida),
            _ => {}
        }
        std::mem::take(&mut self.salida)
    }

    /// What the connection received and could not acknowledge any more is still dealt with: a
    /// device that sends with QoS 0 and leaves at once has every right to.
    pub(super) fn resto(&mut self) -> Resto {
        // What was to be sent and needs no new subscription stays for the next connection.
        for entrega in std::mem::take(&mut self.retenidos) {
            self.sesion.deja(entrega);
        }
        Resto { b: self.b.clone(), acuses: std::mem::take(&mut self.acuses), atascado: self.atascado.take() }
    }
}

/// See [`Conexion::resto`].
pub(super) struct Resto {
    b: Arc<Compartido>,
    acuses: VecDeque<Acuse>,
    atascado: Option<Atascado>,
}

impl Resto {
    pub(super) async fn termina(self) {
        for acuse in self.acuses {
            if let Espera::Commit(lectura, respuesta) = acuse.espera {
                termina(&self.b, *lectura, respuesta).await;
            }
        }
        if let Some(Atascado { entregando, lectura, .. }) = self.atascado
            && let Ok(respuesta) = entregando.await
        {
            termina(&self.b, *lectura, Respuesta::Por(respuesta)).await;
        }
    }
}

async fn termina(b: &Compartido, lectura: Lectura, mut respuesta: Respuesta) {
    respuesta.llega().await;
    if let Some(Some(resultado)) = respuesta.toma() {
        cuenta(b, lectura, resultado).await;
    }
}

/// A commit has returned: what was stored is routed, what was refused is explained. Answers what
/// the acknowledgement says.
async fn cuenta(b: &Compartido, lectura: Lectura, resultado: Resultado) -> (Razon, Option<String>) {
    let Lectura { sensor, publicacion } = lectura;
    if resultado.aceptadas > 0 {
        // A reading is not retained: the newest is the API's to tell.
        b.avisa(Publicacion { retain: false, ..publicacion }).await;
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

/// Ready when the message at the front can be acknowledged; never while there is none.
async fn frente(acuses: &mut VecDeque<Acuse>) {
    match acuses.front_mut() {
        Some(Acuse { espera: Espera::Commit(_, respuesta), .. }) => respuesta.llega().await,
        Some(_) => {}
        None => std::future::pending().await,
    }
}

/// What became of the message that is stuck.
async fn tomado(atascado: &mut Option<Atascado>) -> Result<oneshot::Receiver<Resultado>, Cerrado> {
    match atascado {
        Some(atascado) => (&mut atascado.entregando).await,
        None => std::future::pending().await,
    }
}
