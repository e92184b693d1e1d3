//! Opening a session for a client that has signed in: in the registry, in the store, on the router.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::broker::Compartido;
use super::session::{self, Clave, Estado, Sesion};
use super::sessions::Abierta;
use super::topic;
use crate::domain::Timestamp;
use crate::identity::Principal;
use crate::store::mqtt::Cambio;

/// A session that is the caller's.
pub(super) struct Suya {
    pub(super) sesion: Arc<Sesion>,
    pub(super) estado: OwnedMutexGuard<Estado>,
    pub(super) generacion: u64,
    pub(super) presente: bool,
}

/// Left half-way (the client hung up, its time was over), a session is as if nobody had come.
struct Provisional {
    sesion: Arc<Sesion>,
    iba_a_expirar: Option<Timestamp>,
    hecha: bool,
}

impl Drop for Provisional {
    fn drop(&mut self) {
        if !self.hecha {
            self.sesion.espera(&mut self.sesion.vida(), self.iba_a_expirar.unwrap_or(Timestamp::MIN));
            self.sesion.duerme();
        }
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
    ahora: Timestamp,
) -> Option<Suya> {
    let clave = Clave::new(principal, client_id);
    let abierta = b.sessions.abre(clave, principal, clean, expiry > 0, ahora).await.ok()?;
    let Abierta { sesion, mut estado, generacion, presente, iba_a_expirar, reemplazadas } = abierta;
    let mut provisional = Provisional { sesion: sesion.clone(), iba_a_expirar, hecha: false };
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
    if let Some(id_sesion) = sesion.id_sesion {
        let Clave { principal, client_id } = sesion.clave.clone();
        let conexion = i64::try_from(generacion).unwrap_or(i64::MAX);
        let mut cambios =
            vec![Cambio::Abre { id_sesion, principal, client_id, expiry: expiry.into(), conexion }];
        // Before its queue is read: what is done with is not read again.
        cambios.extend(sesion.toma_anotados());
        if !b.guarda(cambios).await {
            return None;
        }
        if sesion.por_cargar() || estado.dudosa {
            let filas = b.cola(id_sesion).await.ok()?;
            sesion.carga(filas, &mut estado, usize::from(b.parts.settings.receive_maximum));
        }
    }
    for filtro in sesion.filtros().iter().filter(|f| topic::por_router(f)) {
        session::enlaza(b, &sesion, &mut estado).await.ok()?;
        if let Some(emisor) = &mut estado.emisor {
            emisor.subscribe(filtro);
        }
    }
    provisional.hecha = true;
    Some(Suya { sesion, estado, generacion, presente })
}
