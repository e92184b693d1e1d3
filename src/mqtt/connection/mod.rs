//! One connection, from its CONNECT to its end.
//!
//! Nothing here waits for one thing alone: the loop reads while its window of unacknowledged messages
//! has room, writes what there is to write, sends acknowledgements in the order of the messages
//! [MQTT-4.6.0-2] once their commit has returned, and delivers what the session's mailbox holds. A
//! client that is too slow holds up nobody but itself.

mod acks;
mod entrada;
mod incoming;
mod outgoing;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use tokio::time::Instant;

use self::acks::{Acuse, Atascado, Frente, Que};
use self::entrada::Entrada;
use super::broker::Compartido;
use super::opening::Suya;
use super::protocol::{Cierre, Protocol, Pubrec, Razon, Violacion};
use super::publicacion::Qos;
use super::session::{Entrega, Estado, Sesion, Turno};
use super::throttle::{Freno, limita};
use crate::domain::Timestamp;
use crate::identity::Principal;
use crate::realtime::clientes::{self, Cliente, Cuentas};
use crate::store;

/// Bytes waiting to be written beyond which nothing more is delivered, and beyond which nothing
/// more is read either.
const SALIDA: (usize, usize) = (64 << 10, 1 << 20);
/// Bytes of a client's messages that may wait for their commit.
const RETENIDO: usize = 4 << 20;
/// A client that takes nothing for this long is gone.
const SIN_ESCRIBIR: Duration = Duration::from_secs(60);
/// Bytes of a packet that is not whole yet which count as one for the keep-alive: a large one may take longer
/// than that on a slow network, and a byte now and then is no packet [MQTT-3.1.2-22].
const AVANCE: usize = 1 << 10;
/// Between two looks at what a connection holds.
const REPASO: Duration = Duration::from_secs(30);

/// Writes what there is, or else has it sent off; answers how many bytes it wrote, `None` when the
/// connection is gone. Safe to drop half-way.
async fn manda<W: AsyncWrite + Unpin>(escribe: &mut W, salida: &mut BytesMut) -> Option<usize> {
    if salida.is_empty() {
        return escribe.flush().await.ok().map(|()| 0);
    }
    escribe.write_buf(salida).await.ok().filter(|n| *n > 0)
}

/// What came of the last request to forget.
async fn limpio(limpiando: &mut Option<oneshot::Receiver<store::Result<()>>>) -> Option<store::Result<()>> {
    match limpiando {
        Some(respuesta) => respuesta.await.ok(),
        None => std::future::pending().await,
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Fin {
    /// DISCONNECT; `testamento`: with the will all the same (0x04).
    Adios { testamento: bool },
    /// The network connection is gone.
    Perdida,
    /// The client broke the protocol.
    Violacion(Violacion),
    /// We end it.
    Cortada(Cierre),
    /// The server stops.
    Apagado,
}

/// For whoever wonders why a client is gone.
impl fmt::Display for Fin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adios { testamento: false } => f.write_str("it took leave"),
            Self::Adios { testamento: true } => f.write_str("it left, and wanted its will sent"),
            Self::Perdida => f.write_str("the network connection was lost"),
            Self::Violacion(v) => write!(f, "it broke the protocol: {}", v.que),
            Self::Cortada(cierre) => f.write_str(cierre.motivo()),
            Self::Apagado => f.write_str("the server stopped"),
        }
    }
}

/// See the module.
pub(super) struct Conexion {
    pub(super) b: Arc<Compartido>,
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: OwnedMutexGuard<Estado>,
    pub(super) principal: Principal,
    pub(super) cliente: Arc<Cliente>,
    freno: Freno,
    pub(super) protocol: Protocol,
    generacion: u64,
    entrada: Entrada,
    salida: BytesMut,
    acuses: VecDeque<Acuse>,
    atascado: Option<Atascado>,
    /// Bytes of messages in the two above.
    retenido_bytes: usize,
    /// Retained messages to be sent, and what could not be sent when its turn came.
    retenidos: VecDeque<Entrega>,
    /// What the store was last asked to forget.
    limpiando: Option<oneshot::Receiver<store::Result<()>>>,
    /// Deliveries of an earlier connection from here on are still to be sent again.
    reenvio: usize,
    keep_alive: Option<Duration>,
    /// When the last packet, or enough of one, came.
    oida: Instant,
    /// Bytes that have come since, of a packet that is not whole yet.
    a_medias: usize,
    escrita: Instant,
    /// Written, and perhaps still in the hands of TLS or of a WebSocket.
    por_vaciar: bool,
    caduca: Option<Timestamp>,
    /// When what it holds is next cut down to what it needs.
    repaso: Instant,
    /// What DISCONNECT may have set [MQTT-3.14.2-2].
    pub(super) expiry: u32,
    apagando: bool,
}

/// What the handshake settled.
pub(super) struct Inicio {
    pub(super) b: Arc<Compartido>,
    pub(super) suya: Suya,
    pub(super) principal: Principal,
    pub(super) cliente: Arc<Cliente>,
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
        let s = &i.b.parts.settings;
        let freno = Freno::new(s.max_messages_per_s, s.max_bytes_per_s, s.rate_patience);
        let mut protocol = i.protocol;
        // Taken back in order, before anything new has an id [MQTT-4.4.0-1].
        protocol.retoma_recibidos(i.suya.estado.recibidos.iter().copied());
        for vuelo in &i.suya.estado.en_vuelo {
            if vuelo.liberado {
                protocol.retoma_liberado(vuelo.pid);
            } else {
                protocol.retoma_pid(vuelo.pid);
            }
        }
        let (sesion, estado, generacion) = i.suya.toma();
        Self {
            b: i.b,
            sesion,
            estado,
            principal: i.principal,
            cliente: i.cliente,
            freno,
            protocol,
            generacion,
            entrada: Entrada::new(i.entrada),
            salida: i.salida,
            acuses: VecDeque::new(),
            atascado: None,
            retenido_bytes: 0,
            retenidos: VecDeque::new(),
            limpiando: None,
            reenvio: 0,
            // [MQTT-3.1.2-22]
            keep_alive: (i.keep_alive > 0).then(|| Duration::from_millis(u64::from(i.keep_alive) * 1_500)),
            oida: ahora,
            a_medias: 0,
            escrita: ahora,
            por_vaciar: false,
            caduca: i.caduca,
            repaso: ahora + REPASO,
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
        self.pide_lo_suyo();
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
            let (sesion, apaga, corte) = (&self.sesion, &self.b.apaga, &self.cliente.corte);
            tokio::select! {
                leido = lee.read_buf(self.entrada.sitio()), if puede_leer => match leido {
                    Ok(n) if n > 0 => self.leidos(n),
                    _ => return Fin::Perdida,
                },
                escrito = manda(escribe, &mut self.salida), if self.por_escribir() => match escrito {
                    Some(n) => {
                        // Written, it may still be in the hands of TLS or of a WebSocket.
                        self.por_vaciar = n > 0;
                        self.escrita = Instant::now();
                        self.suma(|c| &c.bytes_enviados, n);
                    }
                    None => return Fin::Perdida,
                },
                () = acks::frente(&mut self.acuses) => {}
                tomado = acks::tomado(&mut self.atascado), if self.atascado.is_some() => self.desatasca(tomado),
                // A refusal was logged by the writer; what stays behind is delivered once more.
                _ = limpio(&mut self.limpiando), if self.limpiando.is_some() => self.limpiando = None,
                () = sesion.aviso.notified(), if puede_entregar => {}
                _ = turno.changed() => {}
                () = corte.cancelled() => return Fin::Cortada(Cierre::Administrativo),
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
        let habia = self.por_escribir();
        loop {
            self.lee_paquetes().await?;
            let detenida = self.detenida();
            self.acusa().await?;
            // What has arrived and had no room has it now: nothing else would call for it.
            if !detenida || self.detenida() {
                break;
            }
        }
        self.entrega();
        self.limpia();
        if !habia {
            // Nothing was waiting to be written until now: the patience starts here.
            self.escrita = Instant::now();
        }
        Ok(())
    }

    /// Whether nothing more is read for now: the window is full, the writer has no room, or the
    /// client does not take what we have for it.
    fn detenida(&self) -> bool {
        // One more than the window: a ping is still read while it is full, and an MQTT 5 client that
        // exceeds it is met.
        self.acuses.len() > self.max_en_vuelo()
            || self.retenido_bytes >= RETENIDO
            || self.freno.hasta().is_some()
            || self.atascado.is_some()
            || self.salida.len() >= SALIDA.1
    }

    /// The next moment at which something must be looked at.
    fn plazo(&self, puede_leer: bool) -> Instant {
        let mut plazo = self.repaso;
        if let Some(keep_alive) = self.keep_alive.filter(|_| puede_leer) {
            plazo = plazo.min(self.oida + keep_alive);
        }
        if self.por_escribir() {
            plazo = plazo.min(self.escrita + SIN_ESCRIBIR);
        }
        if let Some(hasta) = self.freno.hasta() {
            plazo = plazo.min(hasta);
        }
        if let Some(caduca) = self.caduca {
            plazo = plazo.min(Instant::now() + caduca.since(self.b.parts.clock.now()));
        }
        plazo
    }

    /// Gives back what its buffers and queues once needed. Each keeps the room of its worst moment, and every
    /// connection has one sooner or later: over hours all of them would be as large as they can be.
    fn repasa(&mut self) {
        self.entrada.suelta();
        if self.salida.is_empty() {
            self.salida = BytesMut::new();
        }
        self.acuses.shrink_to_fit();
        self.retenidos.shrink_to_fit();
        self.estado.en_vuelo.shrink_to_fit();
        self.sesion.encoge();
    }

    /// What time has come for.
    fn vence(&mut self, puede_leer: bool) -> Option<Fin> {
        let ahora = Instant::now();
        if ahora >= self.repaso {
            self.repaso = ahora + REPASO;
            self.repasa();
        }
        if puede_leer && self.keep_alive.is_some_and(|k| ahora >= self.oida + k) {
            return Some(Fin::Cortada(Cierre::KeepAlive));
        }
        if self.por_escribir() && ahora >= self.escrita + SIN_ESCRIBIR {
            return Some(Fin::Perdida);
        }
        if self.freno.harta() {
            return Some(Fin::Cortada(Cierre::DemasiadoRapido));
        }
        if self.caduca.is_some_and(|c| c <= self.b.parts.clock.now()) {
            return Some(Fin::Cortada(Cierre::Caducada));
        }
        None
    }

    async fn lee_paquetes(&mut self) -> Result<(), Fin> {
        while !self.entrada.is_empty() && !self.detenida() && !self.apagando {
            let (acuses, en_vuelo) = (&self.acuses, &self.estado.en_vuelo);
            let sin_confirmar = |pid| acuses.iter().any(|a| a.que.es_pubrec(pid));
            let pubrec = |pid| match en_vuelo.iter().find(|v| v.pid == pid) {
                Some(vuelo) if vuelo.liberado => Pubrec::Repetido,
                Some(_) => Pubrec::Esperado,
                None => Pubrec::Ajeno,
            };
            let ahora = self.b.parts.clock.now();
            let r = self.protocol.recv(&self.entrada, sin_confirmar, pubrec, ahora, &mut self.salida);
            self.entrada.avanza(r.usados);
            if r.usados > 0 {
                self.oye();
            }
            if let Some(violacion) = r.violacion {
                if violacion.cierre == Some(Cierre::PaqueteGrande) {
                    limita("max_packet_bytes");
                }
                return Err(Fin::Violacion(violacion));
            }
            if let Some(paquete) = r.paquete {
                self.paquete(paquete).await?;
                // What can be answered is answered in its place, before what follows.
                self.acusa().await?;
            }
            if r.usados == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The client is there: its keep-alive begins anew.
    fn oye(&mut self) {
        (self.oida, self.a_medias) = (Instant::now(), 0);
    }

    /// The connection's number, as the store has it.
    pub(super) fn numero(&self) -> i64 {
        i64::try_from(self.generacion).unwrap_or(i64::MAX)
    }

    fn leidos(&mut self, n: usize) {
        self.a_medias += n;
        if self.a_medias >= AVANCE {
            self.oye();
        }
        self.entrada.leidos(n);
        self.freno.lee(n);
        self.suma(|c| &c.bytes_recibidos, n);
    }

    /// Counts, for this connection and for all.
    fn suma(&self, cual: impl Fn(&Cuentas) -> &AtomicU64, n: usize) {
        clientes::suma(cual(&self.cliente.cuentas), n as u64);
        clientes::suma(cual(&self.b.parts.clientes.totales), n as u64);
    }

    /// Whether something is on its way to the client.
    fn por_escribir(&self) -> bool {
        self.por_vaciar || !self.salida.is_empty()
    }

    fn max_en_vuelo(&self) -> usize {
        usize::from(self.b.parts.settings.receive_maximum)
    }

    /// Messages of the client with QoS 1 and 2 that are not completed.
    fn sin_completar(&self) -> usize {
        let abiertas = self.acuses.iter().filter(|a| a.que.de_mensaje().is_some()).count();
        abiertas + self.estado.recibidos.len()
    }

    /// Says why the connection ends, and takes back what it wrote for that.
    pub(super) fn despide(&mut self, fin: &Fin) -> BytesMut {
        match fin {
            Fin::Cortada(cierre) | Fin::Violacion(Violacion { cierre: Some(cierre), .. }) => {
                self.protocol.disconnect(*cierre, &mut self.salida);
            }
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
            let _ = self.sesion.deja(entrega);
        }
        let (acuses, mut atascado) = (std::mem::take(&mut self.acuses), self.atascado.take());
        if self.expiry > 0 {
            // The client sends again what it was not answered: it is known then, and its commit is before
            // anything that the next connection has to wait for. [MQTT-4.3.3-10]
            for acuse in &acuses {
                match acuse.que {
                    Que::Tomado { pid: Some(pid), qos: Qos::Dos, razon: Razon::Exito, .. } => {
                        self.estado.recibidos.insert(pid);
                    }
                    Que::Completa { pid, .. } => drop(self.estado.recibidos.remove(&pid)),
                    _ => {}
                }
            }
            // What the writer did not take is left to that.
            atascado = atascado.filter(|a| !matches!(a.que, Que::Tomado { pid: Some(_), qos: Qos::Dos, .. }));
        }
        Resto { b: self.b.clone(), acuses, atascado }
    }
}

/// See [`Conexion::resto`].
pub(super) struct Resto {
    b: Arc<Compartido>,
    acuses: VecDeque<Acuse>,
    atascado: Option<Atascado>,
}

impl Resto {
    /// Waits for what is not committed yet, in order, and delivers it.
    pub(super) async fn termina(mut self) {
        if let Some(Atascado { que, entregando, desde }) = self.atascado.take()
            && let Ok(espera) = entregando.await
        {
            self.acuses.push_back(Acuse { que, espera, desde });
        }
        while !self.acuses.is_empty() {
            acks::frente(&mut self.acuses).await;
            match acks::toma(&mut self.acuses) {
                Frente::Nada | Frente::Nunca => return,
                Frente::Listo(Que::Leido { lectura, .. }, resultado, _) => {
                    outgoing::cuenta(&self.b, *lectura, resultado.unwrap_or_default()).await;
                }
                Frente::Listo(Que::Tomado { entregable, .. }, _, true) => {
                    // `Parado` ends the process by way of the router's token.
                    let _ = self.b.entrega(*entregable).await;
                }
                Frente::Listo(..) => {}
            }
        }
    }
}
