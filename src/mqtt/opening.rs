//! Opening a session for a client that has signed in: in the registry, in the store, on the router.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::broker::Compartido;
use super::publicacion::Publicacion;
use super::session::{self, Clave, Estado, Sesion};
use super::sessions::Abierta;
use super::testamento::Legado;
use super::topic;
use crate::domain::Timestamp;
use crate::identity::Principal;
use crate::store::mqtt::{Cambio, Dueno};

/// A session that is the caller's.
pub(super) struct Suya {
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: OwnedMutexGuard<Estado>,
    pub(super) generacion: u64,
    pub(super) presente: bool,
    /// Its will, which is in the store.
    pub(super) legado: Option<Legado>,
}

/// Left half-way (the client hung up, its time was over), a session is as if nobody had come.
struct Provisional {
    b: Arc<Compartido>,
    sesion: Arc<Sesion>,
    iba_a_expirar: Option<Timestamp>,
    /// The will that was to be sent if nobody came.
    cancelado: Option<(Timestamp, Legado)>,
    /// The will of whoever came, once the store may have it.
    legado: Option<Legado>,
    /// What nobody waits for, until the writer has it.
    anotados: Vec<Cambio>,
    hecha: bool,
}

impl Drop for Provisional {
    fn drop(&mut self) {
        if self.hecha {
            return;
        }
        {
            let mut vida = self.sesion.vida();
            vida.testamento = self.cancelado.take();
            self.sesion.espera(&mut vida, self.iba_a_expirar.unwrap_or(Timestamp::MIN));
        }
        self.sesion.duerme();
        self.sesion.devuelve_anotados(std::mem::take(&mut self.anotados));
        if let Some(legado) = &self.legado {
            self.sesion.anota(legado.olvida());
        }
        self.b.apunta(&self.sesion);
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
    let abierta = b.sessions.abre(clave, principal, clean, expiry > 0, ahora).await.ok()?;
    let Abierta { sesion, mut estado, generacion, presente, iba_a_expirar, reemplazadas, cancelado } =
        abierta;
    let Clave { principal: de_quien, client_id } = sesion.clave.clone();
    let conexion = i64::try_from(generacion).unwrap_or(i64::MAX);
    let de = Dueno { principal: de_quien.clone(), client_id: client_id.clone(), conexion };
    let legado = testamento.map(|(mensaje, espera)| Legado { mensaje, espera, de });
    let mut provisional = Provisional {
        b: b.clone(),
        sesion: sesion.clone(),
        iba_a_expirar,
        cancelado,
        legado: None,
        anotados: Vec::new(),
        hecha: false,
    };
    for (vieja, will) in reemplazadas {
        let yo = b.clone();
        // To its end, even if this client does not wait for it.
        let fin = async move {
            if let Some(will) = will {
                yo.testamento(&vieja.sesion.principal(), will).await;
            }
            yo.entierra(&vieja.sesion, vieja.estado).await;
        };
        b.conexiones.spawn(fin).await.ok()?;
    }
    let mut cambios: Vec<Cambio> = provisional.cancelado.iter().map(|(_, legado)| legado.olvida()).collect();
    cambios.extend(legado.as_ref().map(Legado::guarda));
    if let Some(id_sesion) = sesion.id_sesion {
        let expiry = expiry.into();
        cambios.push(Cambio::Abre { id_sesion, principal: de_quien, client_id, expiry, conexion });
    }
    // Before its queue is read: what is done with is not read again.
    provisional.anotados = sesion.toma_anotados();
    cambios.extend(provisional.anotados.iter().cloned());
    if !cambios.is_empty() {
        let respuesta = b.parts.ingest.guardar(cambios).await.ok()?;
        // From here on the writer has them, whether this client waits for it or not.
        provisional.anotados.clear();
        provisional.legado.clone_from(&legado);
        respuesta.await.ok()?.ok()?;
    }
    if let Some(id_sesion) = sesion.id_sesion.filter(|_| sesion.por_cargar() || estado.dudosa) {
        let filas = b.cola(id_sesion).await.ok()?;
        sesion.carga(filas, &mut estado, usize::from(b.parts.settings.receive_maximum));
    }
    for filtro in sesion.filtros().iter().filter(|f| topic::por_router(f)) {
        session::enlaza(b, &sesion, &mut estado).await.ok()?;
        if let Some(emisor) = &mut estado.emisor {
            emisor.subscribe(filtro);
        }
    }
    provisional.hecha = true;
    Some(Suya { sesion, estado, generacion, presente, legado })
}
