//! Which sessions a message goes to without the router: those that the store keeps it for, and one
//! member of every shared subscription that it matches.

use std::collections::HashMap;
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
    /// By filters without a wildcard.
    exactos: HashMap<String, Vec<Arc<Sesion>>>,
    comodines: HashMap<String, Vec<Arc<Sesion>>>,
    /// By `$share/group/filter`.
    grupos: HashMap<Arc<str>, Grupo>,
}

/// A shared subscription.
struct Grupo {
    filtro: String,
    miembros: Vec<Arc<Sesion>>,
    turno: usize,
}

impl Grupo {
    /// Whose turn it is: among those who are connected, else among those that are kept.
    fn elige(&mut self, puede: impl Fn(&Sesion) -> bool) -> Option<Arc<Sesion>> {
        let n = self.miembros.len();
        let orden = (0..n).map(|i| (self.turno + i) % n);
        let conectado = |s: &Sesion| s.vida().conectada;
        let elegido = orden
            .clone()
            .find(|i| conectado(&self.miembros[*i]) && puede(&self.miembros[*i]))
            .or_else(|| orden.clone().find(|i| puede(&self.miembros[*i])))?;
        self.turno = (elegido + 1) % n;
        Some(self.miembros[elegido].clone())
    }
}

/// A session, and what it is to be given.
pub(super) type Destino = (Arc<Sesion>, Entrega);

impl Indice {
    /// `sesion` subscribes to `filtro`.
    pub(super) fn pon(&self, sesion: &Arc<Sesion>, filtro: &str) {
        let mut t = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let miembros = if let Some((_, interno)) = topic::compartido(filtro) {
            let nuevo = || Grupo { filtro: interno.to_owned(), miembros: Vec::new(), turno: 0 };
            &mut t.grupos.entry(filtro.into()).or_insert_with(nuevo).miembros
        } else if sesion.id_sesion.is_none() {
            return;
        } else if filtro.contains(['+', '#']) {
            t.comodines.entry(filtro.to_owned()).or_default()
        } else {
            t.exactos.entry(filtro.to_owned()).or_default()
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
        let tabla = if filtro.contains(['+', '#']) { &mut t.comodines } else { &mut t.exactos };
        if let Some(miembros) = tabla.get_mut(filtro) {
            miembros.retain(otro);
            if miembros.is_empty() {
                tabla.remove(filtro);
            }
        }
    }

    /// Whom a message goes to. With `guarda`, those whom the store keeps it for have their place in
    /// it; without, it is for whoever is connected.
    pub(super) fn destinos(
        &self,
        publicacion: &Arc<Publicacion>,
        guarda: bool,
        directorio: &Directorio,
    ) -> Vec<Destino> {
        {
            let t = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if t.exactos.is_empty() && t.comodines.is_empty() && t.grupos.is_empty() {
                return Vec::new();
            }
        }
        let (topic, sensor) = (publicacion.topic.as_str(), publicacion.sensor);
        let puede = |s: &Sesion| acl::entrega(&s.principal(), topic, sensor, directorio);
        let numera = |s: &Sesion, e: Entrega| if guarda { s.numera(e) } else { e };
        let mut destinos = self.de_grupos(publicacion, guarda, &puede);
        let t = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let de_comodines = t.comodines.iter().filter(|(f, _)| topic::coincide(f, topic)).map(|(_, s)| s);
        let mut vistas: Vec<*const Sesion> = Vec::new();
        for sesion in t.exactos.get(topic).into_iter().chain(de_comodines).flatten() {
            // A session with overlapping subscriptions is met more than once.
            if vistas.contains(&Arc::as_ptr(sesion)) {
                continue;
            }
            vistas.push(Arc::as_ptr(sesion));
            if let (Some(entrega), _) = sesion.para_mi(publicacion)
                && entrega.qos > Qos::Cero
                && puede(sesion)
            {
                destinos.push((sesion.clone(), numera(sesion, entrega)));
            }
        }
        destinos
    }

    fn de_grupos(
        &self,
        publicacion: &Arc<Publicacion>,
        guarda: bool,
        puede: &impl Fn(&Sesion) -> bool,
    ) -> Vec<Destino> {
        let mut destinos = Vec::new();
        if self.0.read().unwrap_or_else(PoisonError::into_inner).grupos.is_empty() {
            return destinos;
        }
        let mut t = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (nombre, grupo) in &mut t.grupos {
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
        let mut t = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let p = &huerfana.publicacion;
        let sesion = t
            .grupos
            .get_mut(nombre)?
            .elige(|s| acl::entrega(&s.principal(), &p.topic, p.sensor, directorio))?;
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
