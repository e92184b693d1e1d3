//! What a session hears of the router, while somebody is connected to it and subscribes to a filter with a gap.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::acl;
use super::broker::Compartido;
use super::publicacion::Qos;
use super::router::{Emisor, Parado, Receptor, Ruteada};
use super::session::Sesion;
use crate::domain::Clock;
use crate::identity::Directorio;

/// Messages heard through one filter of a session and expected through another.
const MAX_REPETIDOS: usize = 4_096;

/// Gives a session its link to the router, unless it has one: its connection subscribes.
///
/// # Errors
/// [`Parado`].
pub(super) async fn enlaza(
    b: &Arc<Compartido>,
    sesion: &Arc<Sesion>,
    suyo: &mut Option<Emisor>,
) -> Result<(), Parado> {
    if suyo.is_none() {
        let (emisor, receptor) = b.router.link().await?;
        let (directorio, clock) = (b.parts.directorio.clone(), b.parts.clock.clone());
        // Ends with the link, which ends with the connection.
        tokio::spawn(escucha(sesion.clone(), receptor, directorio, clock));
        *suyo = Some(emisor);
        sesion.enlazada.store(true, Ordering::Release);
    }
    Ok(())
}

/// Hears the router for a session, for as long as the link lives.
async fn escucha(
    sesion: Arc<Sesion>,
    mut receptor: Receptor,
    directorio: Arc<Directorio>,
    clock: Arc<dyn Clock>,
) {
    // Number of a message → how many more times it will come, once for each filter that it matches.
    let mut repetidos: HashMap<u64, usize> = HashMap::new();
    while let Some((numero, Ruteada { publicacion, dados, epoca })) = receptor.next().await {
        if dados.contains(&sesion.id) {
            // Its topic led to another filter of the session.
            continue;
        }
        if let Some(quedan) = repetidos.get_mut(&numero) {
            *quedan -= 1;
            if *quedan == 0 {
                repetidos.remove(&numero);
            }
            continue;
        }
        let (entrega, coinciden) = {
            // Only by what was subscribed to before it was published.
            let desde = receptor.suscritos();
            sesion.para_mi(&publicacion, |filtro| desde.get(filtro).is_some_and(|d| *d <= epoca))
        };
        if coinciden > 1 {
            if repetidos.len() >= MAX_REPETIDOS {
                // Entries of a filter that was taken away meanwhile are never used up.
                let viejo = numero.saturating_sub(MAX_REPETIDOS as u64);
                repetidos.retain(|n, _| *n > viejo);
            }
            repetidos.insert(numero, coinciden - 1);
        }
        let Some(entrega) = entrega else { continue };
        if entrega.qos > Qos::Cero && sesion.id_sesion.is_some() {
            // It is kept: it came another way, after its commit.
            continue;
        }
        if publicacion.vencida(clock.now())
            || !acl::entrega(&sesion.principal(), &publicacion.topic, publicacion.sensor, &directorio)
        {
            continue;
        }
        // Nothing shared comes this way.
        let _ = sesion.deja(entrega);
    }
}
