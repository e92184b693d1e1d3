//! Which sessions a message goes to without the router: those with a filter that its topic leads to,
//! those that the store keeps it for, and one member of every shared subscription that it matches.
//! What is left to the router are filters with a gap (`sensores/+/data`) of sessions that are not kept
//! (`docs/decisions/0007-only-gaps-go-by-the-router.md`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::publicacion::{Publicacion, Qos};
use super::session::{Entrega, Sesion};
use super::{acl, topic};
use crate::identity::Directorio;

/// See the module.
#[derive(Default)]
pub(super) struct Indice(RwLock<Tablas>);

#[derive(Default)]
struct Tablas {
    /// By filters that a topic leads to ([`topic::claves`]).
    directos: HashMap<String, Vec<Arc<Sesion>>>,
    /// By filters with a gap: the kept sessions.
    con_hueco: HashMap<String, Vec<Arc<Sesion>>>,
    /// By `$share/group/filter`.
    grupos: HashMap<Arc<str>, Grupo>,
}

/// A shared subscription.
struct Grupo {
    filtro: String,
    miembros: Vec<Arc<Sesion>>,
    turno: AtomicUsize,
}

impl Grupo {
    /// Whose turn it is: among those who are connected, else among those that are kept.
    fn elige(&self, puede: impl Fn(&Sesion) -> bool) -> Option<Arc<Sesion>> {
        let (n, turno) = (self.miembros.len(), self.turno.load(Ordering::Relaxed));
        let orden = (0..n).map(|i| (turno + i) % n);
        let conectado = |s: &Sesion| s.vida().conectada;
        let elegido = orden
            .clone()
            .find(|i| conectado(&self.miembros[*i]) && puede(&self.miembros[*i]))
            .or_else(|| orden.clone().find(|i| puede(&self.miembros[*i])))?;
        self.turno.store((elegido + 1) % n, Ordering::Relaxed);
        Some(self.miembros[elegido].clone())
    }
}

impl Tablas {
    /// The sessions of every filter that `topic` leads to.
    fn de(&self, topic: &str) -> Vec<&Vec<Arc<Sesion>>> {
        let mut listas = Vec::new();
        if !self.directos.is_empty() {
            topic::claves(topic, |clave| listas.extend(self.directos.get(clave)));
        }
        listas
    }
}

/// Calls `ve` once for each session, however many of the lists it is in: it has overlapping
/// subscriptions.
fn cada_una<'a>(listas: impl IntoIterator<Item = &'a Vec<Arc<Sesion>>>, mut ve: impl FnMut(&'a Arc<Sesion>)) {
    let mut listas = listas.into_iter().peekable();
    let mut vistas = HashSet::new();
    while let Some(lista) = listas.next() {
        let hay_mas = listas.peek().is_some();
        for sesion in lista {
            let nueva = if hay_mas { vistas.insert(sesion.id) } else { !vistas.contains(&sesion.id) };
            if nueva {
                ve(sesion);
            }
        }
    }
}

/// A session, and what it is to be given.
pub(super) type Destino = (Arc<Sesion>, Entrega);

impl Indice {
    /// `sesion` subscribes to `filtro`.
    pub(super) fn pon(&self, sesion: &Arc<Sesion>, filtro: &str) {
        let mut t = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let miembros = if let Some((_, interno)) = topic::compartido(filtro) {
            let nuevo =
                || Grupo { filtro: interno.to_owned(), miembros: Vec::new(), turno: AtomicUsize::new(0) };
            &mut t.grupos.entry(filtro.into()).or_insert_with(nuevo).miembros
        } else if !topic::con_hueco(filtro) {
            t.directos.entry(filtro.to_owned()).or_default()
        } else if sesion.id_sesion.is_some() {
            t.con_hueco.entry(filtro.to_owned()).or_default()
        } else {
            return;
        };
        if !miembros.iter().any(|m| Arc::ptr_eq(m, sesion)) {
            miembros.push(sesion.clone());
        }
    }

    /// `sesion` subscribes to `filtro` no longer.
    pub(super) fn quita(&self, sesion: &Arc<Sesion>, filtro: &str) {
        let mut t = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let otro = |m: &Arc<Sesion>| !Arc::ptr_eq(m, sesion);
        if let Some(grupo) = t.grupos.get_mut(filtro) {
            grupo.miembros.retain(otro);
            if grupo.miembros.is_empty() {
                t.grupos.remove(filtro);
            }
            return;
        }
        let tabla = if topic::con_hueco(filtro) { &mut t.con_hueco } else { &mut t.directos };
        if let Some(miembros) = tabla.get_mut(filtro) {
            miembros.retain(otro);
            if miembros.is_empty() {
                tabla.remove(filtro);
            }
        }
    }

    /// How many shared subscriptions there are besides this one, and how many of them have a member that is
    /// `suyo`; none, when it has one already.
    pub(super) fn otros_grupos(&self, filtro: &str, suyo: impl Fn(&Sesion) -> bool) -> (usize, usize) {
        let t = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let tiene = |g: &Grupo| g.miembros.iter().any(|m| suyo(m));
        match t.grupos.get(filtro) {
            Some(grupo) if tiene(grupo) => (0, 0),
            Some(_) => (0, t.grupos.values().filter(|g| tiene(g)).count()),
            None => (t.grupos.len(), t.grupos.values().filter(|g| tiene(g)).count()),
        }
    }

    /// Who is to have a message whether it is connected or not: a kept session that has it with QoS 1
    /// or 2, and one member of each group. With `guarda` each has its place in the store.
    pub(super) fn por_guardar(
        &self,
        publicacion: &Arc<Publicacion>,
        guarda: bool,
        directorio: &Directorio,
    ) -> Vec<Destino> {
        let puede =
            |s: &Sesion| acl::entrega(&s.principal(), &publicacion.topic, publicacion.sensor, directorio);
        let numera = |s: &Sesion, e: Entrega| if guarda { s.numera(e) } else { e };
        let mut destinos = self.de_grupos(publicacion, guarda, &puede);
        let t = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let con_hueco = t.con_hueco.iter().filter(|(f, _)| topic::coincide(f, &publicacion.topic));
        let listas = t.de(&publicacion.topic).into_iter().chain(con_hueco.map(|(_, s)| s));
        cada_una(listas, |sesion| {
            if sesion.id_sesion.is_some()
                && let (Some(entrega), _) = sesion.para_mi(publicacion, |_| true)
                && entrega.qos > Qos::Cero
                && puede(sesion)
            {
                destinos.push((sesion.clone(), numera(sesion, entrega)));
            }
        });
        destinos
    }

    /// Gives a message to those whom its topic leads to and who are there for it now: sessions that are
    /// not kept, and kept ones that have it with QoS 0. Answers those of them who hear the router too.
    pub(super) fn da(&self, publicacion: &Arc<Publicacion>, directorio: &Directorio) -> Vec<u64> {
        let mut dados = Vec::new();
        let t = self.0.read().unwrap_or_else(PoisonError::into_inner);
        cada_una(t.de(&publicacion.topic), |sesion| {
            if let (Some(entrega), _) = sesion.para_mi(publicacion, |_| true)
                && (sesion.id_sesion.is_none() || entrega.qos == Qos::Cero)
                && acl::entrega(&sesion.principal(), &publicacion.topic, publicacion.sensor, directorio)
            {
                dados.extend(sesion.enlazada().then_some(sesion.id));
                // Nothing shared comes this way.
                let _ = sesion.deja(entrega);
            }
        });
        dados
    }

    fn de_grupos(
        &self,
        publicacion: &Arc<Publicacion>,
        guarda: bool,
        puede: &impl Fn(&Sesion) -> bool,
    ) -> Vec<Destino> {
        let mut destinos = Vec::new();
        let t = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (nombre, grupo) in &t.grupos {
            if topic::coincide(&grupo.filtro, &publicacion.topic)
                && let Some(sesion) = grupo.elige(puede)
                && let Some(entrega) = de_grupo(&sesion, nombre, publicacion)
            {
                let entrega = if guarda { sesion.numera(entrega) } else { entrega };
                destinos.push((sesion, entrega));
            }
        }
        destinos
    }

    /// Another member for what was on its way to one that is gone.
    pub(super) fn otro(&self, huerfana: &Entrega, directorio: &Directorio) -> Option<Destino> {
        let nombre = huerfana.grupo.as_ref()?;
        let t = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let p = &huerfana.publicacion;
        let sesion =
            t.grupos.get(nombre)?.elige(|s| acl::entrega(&s.principal(), &p.topic, p.sensor, directorio))?;
        let entrega = de_grupo(&sesion, nombre, p)?;
        let entrega = sesion.numera(entrega);
        Some((sesion, entrega))
    }
}

/// What a message comes to for a member of a shared subscription.
fn de_grupo(sesion: &Sesion, nombre: &Arc<str>, publicacion: &Arc<Publicacion>) -> Option<Entrega> {
    let pedido = sesion.suscripcion(nombre)?;
    Some(Entrega {
        publicacion: publicacion.clone(),
        qos: pedido.qos.min(publicacion.qos),
        retain: pedido.rap && publicacion.retain,
        ids: pedido.id.into_iter().collect(),
        seq: None,
        grupo: Some(nombre.clone()),
    })
}
