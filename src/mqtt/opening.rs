//! Opening a session for a client that has signed in: in the registry, in the store, on the router.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::broker::Compartido;
use super::enlace;
use super::publicacion::Publicacion;
use super::router::Emisor;
use super::session::{Clave, Estado, Sesion};
use super::sessions::{Abierta, Reemplazada};
use super::testamento::Legado;
use super::topic;
use crate::domain::Timestamp;
use crate::identity::Principal;
use crate::store::mqtt::{Cambio, Dueno};

/// A session that a client is about to have.
pub(super) struct Suya {
    // First: when all of this is dropped, the session is as it was before anybody else can have it.
    provisional: Provisional,
    pub(super) estado: OwnedMutexGuard<Estado>,
    pub(super) generacion: u64,
    pub(super) presente: bool,
    /// Its will, which is in the store.
    pub(super) legado: Option<Legado>,
}

impl Suya {
    pub(super) fn sesion(&self) -> &Arc<Sesion> {
        &self.provisional.sesion
    }

    /// A connection serves it from now on, and sees to its end.
    pub(super) fn toma(mut self) -> (Arc<Sesion>, OwnedMutexGuard<Estado>, u64) {
        self.provisional.hecha = true;
        self.estado.emisor = self.provisional.emisor.take();
        (self.provisional.sesion.clone(), self.estado, self.generacion)
    }
}

/// Let go of before a connection serves it (the client hung up, its time was over, it is not let in after all), a
/// session is as if nobody had come: [MQTT-3.1.3-9] speaks of a connection to the session, and this was none.
struct Provisional {
    b: Arc<Compartido>,
    sesion: Arc<Sesion>,
    conexion: i64,
    iba_a_expirar: Option<Timestamp>,
    /// The will that was to be sent if nobody came.
    cancelado: Option<(Timestamp, Legado)>,
    /// The will of whoever came, once the store may have it.
    legado: Option<Legado>,
    /// What nobody waits for, until the writer has it.
    anotados: Vec<Cambio>,
    /// The writer has what opens the session.
    entregada: bool,
    /// What was sent by an earlier connection; `None` while that is not known.
    enviadas: Option<Vec<i64>>,
    /// Its link to the router. What hears it ends with this.
    emisor: Option<Emisor>,
    hecha: bool,
}

impl Drop for Provisional {
    fn drop(&mut self) {
        if self.hecha {
            return;
        }
        let expira = {
            let mut vida = self.sesion.vida();
            vida.testamento.clone_from(&self.cancelado);
            self.sesion.espera(&mut vida, self.iba_a_expirar.unwrap_or(Timestamp::MIN))
        };
        self.sesion.duerme();
        self.sesion.devuelve_anotados(std::mem::take(&mut self.anotados));
        if self.entregada {
            // Whether or not it is committed, this comes after it.
            for cambio in self.deshacen(expira) {
                self.sesion.anota(cambio);
            }
        }
        self.b.apunta(&self.sesion);
    }
}

impl Provisional {
    /// What undoes in the store what opens the session.
    fn deshacen(&mut self, expira: Timestamp) -> Vec<Cambio> {
        let mut cambios: Vec<Cambio> = self.legado.iter().map(Legado::olvida).collect();
        if let Some((cuando, legado)) = &self.cancelado {
            cambios.extend([legado.guarda(), legado.aplaza(*cuando)]);
        }
        let (conexion, id_sesion) = (self.conexion, self.sesion.id_sesion);
        let cierra = |(id_sesion, enviadas)| Cambio::Cierra { id_sesion, conexion, expira, enviadas };
        cambios.extend(id_sesion.zip(self.enviadas.take()).map(cierra));
        cambios
    }
}

/// Sessions that end to make place for another, with the will that waited for that: they do, whatever becomes of
/// whoever came.
struct Reemplazadas {
    b: Arc<Compartido>,
    todas: Vec<Reemplazada>,
}

impl Reemplazadas {
    /// Ends when they have, unless it is dropped: they do not wait for that.
    async fn entierra(mut self) {
        if !self.todas.is_empty() {
            let _ = self.b.conexiones.spawn(fin(self.b.clone(), std::mem::take(&mut self.todas))).await;
        }
    }
}

impl Drop for Reemplazadas {
    fn drop(&mut self) {
        if !self.todas.is_empty() {
            self.b.conexiones.spawn(fin(self.b.clone(), std::mem::take(&mut self.todas)));
        }
    }
}

async fn fin(b: Arc<Compartido>, todas: Vec<Reemplazada>) {
    for (vieja, will) in todas {
        if let Some(will) = will {
            b.testamento(&vieja.sesion.principal(), will).await;
        }
        b.entierra(&vieja.sesion, vieja.estado).await;
    }
}

/// Opens the session of `principal` by this identifier. What has to survive of it is in the store when
/// this returns. `None` when that cannot be had.
pub(super) async fn abre(
    b: &Arc<Compartido>,
    principal: &Principal,
    client_id: &str,
    clean: bool,
    expiry: u32,
    testamento: Option<(Publicacion, u32)>,
    ahora: Timestamp,
) -> Option<Suya> {
    let clave = Clave::new(principal, client_id);
    let mut reemplazadas = Reemplazadas { b: b.clone(), todas: Vec::new() };
    let abierta = b.sessions.abre(clave, principal, clean, expiry > 0, ahora, &mut reemplazadas.todas).await;
    let Abierta { sesion, estado, generacion, presente, iba_a_expirar, cancelado } = abierta.ok()?;
    let Clave { principal: de_quien, client_id } = sesion.clave.clone();
    let conexion = i64::try_from(generacion).unwrap_or(i64::MAX);
    let de = Dueno { principal: de_quien.clone(), client_id: client_id.clone(), conexion };
    let legado = testamento.map(|(mensaje, espera)| Legado { mensaje, espera, de });
    let provisional = Provisional {
        b: b.clone(),
        sesion,
        conexion,
        iba_a_expirar,
        cancelado,
        legado: None,
        anotados: Vec::new(),
        entregada: false,
        enviadas: (!estado.dudosa).then(|| estado.enviadas()),
        emisor: None,
        hecha: false,
    };
    let mut suya = Suya { provisional, estado, generacion, presente, legado };
    reemplazadas.entierra().await;
    let p = &mut suya.provisional;
    // First, in their order: what was noted may be what undoes another's coming.
    p.anotados = p.sesion.toma_anotados();
    let mut cambios = p.anotados.clone();
    cambios.extend(p.cancelado.iter().map(|(_, legado)| legado.olvida()));
    cambios.extend(suya.legado.as_ref().map(Legado::guarda));
    if let Some(id_sesion) = p.sesion.id_sesion {
        let expiry = expiry.into();
        cambios.push(Cambio::Abre { id_sesion, principal: de_quien, client_id, expiry, conexion });
    }
    // Before its queue is read: what is done with is not read again.
    if !cambios.is_empty() {
        let respuesta = b.parts.ingest.guardar(cambios).await.ok()?;
        // From here on the writer has them, whether this client waits for it or not.
        p.anotados.clear();
        p.legado.clone_from(&suya.legado);
        p.entregada = true;
        respuesta.await.ok()?.ok()?;
    }
    if let Some(id_sesion) = p.sesion.id_sesion.filter(|_| p.sesion.por_cargar() || suya.estado.dudosa) {
        let filas = b.cola(id_sesion).await.ok()?;
        p.sesion.carga(filas, &mut suya.estado, usize::from(b.parts.settings.receive_maximum));
        p.enviadas = Some(suya.estado.enviadas());
    }
    for filtro in p.sesion.filtros().iter().filter(|f| topic::por_router(f)) {
        enlace::enlaza(b, &p.sesion, &mut p.emisor).await.ok()?;
        if let Some(emisor) = &mut p.emisor {
            emisor.subscribe(filtro);
        }
    }
    Some(suya)
}
