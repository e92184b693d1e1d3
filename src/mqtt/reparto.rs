//! A message, and what is to be done with it: first its changes are committed, then it is delivered.
//!
//! Messages that are retained are delivered in the order of their commits, whoever published them: the writer puts
//! them in line as it commits them, and whoever waited for one delivers what is in line by then. So what a topic
//! has in memory, what its subscribers heard last and what the store has are one and the same message.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::broker::Compartido;
use super::index::Destino;
use super::publicacion::Publicacion;
use super::retained::{EnCamino, Retained};
use super::router::{Parado, Ruteada};
use super::session::Entrega;
use crate::ingest::Cambios;
use crate::store::mqtt::Cambio;

/// See the module.
pub(super) struct Reparto {
    pub(super) publicacion: Arc<Publicacion>,
    destinos: Vec<Destino>,
    /// It is retained.
    retiene: Option<EnCamino>,
}

/// A message that the writer was given the changes of.
pub(super) enum Entregable {
    /// Delivered by whoever has it.
    Suelto(Reparto),
    /// In line once it is committed.
    EnFila(Arc<Publicacion>),
}

impl Entregable {
    pub(super) fn publicacion(&self) -> &Publicacion {
        match self {
            Self::Suelto(reparto) => &reparto.publicacion,
            Self::EnFila(publicacion) => publicacion,
        }
    }
}

impl Reparto {
    /// What must be in the store before anybody is told that the message was taken.
    pub(super) fn cambios(&self) -> Vec<Cambio> {
        let encoladas = self.destinos.iter().filter_map(|(sesion, entrega)| sesion.encola(entrega));
        encoladas.chain(self.retiene.is_some().then(|| Retained::cambio(&self.publicacion))).collect()
    }

    /// What the writer is to have of it, with `otros` of the same commit, and what is to be delivered then.
    pub(super) fn parte(self, fila: &Fila, otros: impl IntoIterator<Item = Cambio>) -> (Cambios, Entregable) {
        let mut cambios = self.cambios();
        cambios.extend(otros);
        if self.retiene.is_none() {
            return (cambios.into(), Entregable::Suelto(self));
        }
        let (publicacion, esperan) = (self.publicacion.clone(), fila.esperan.clone());
        let luego = Box::new(move || cerrojo(&esperan).push_back(self));
        (Cambios { cambios, luego: Some(luego) }, Entregable::EnFila(publicacion))
    }
}

/// Retained messages that are committed and not delivered yet, in the order of their commits.
#[derive(Default)]
pub(super) struct Fila {
    esperan: Arc<Mutex<VecDeque<Reparto>>>,
    /// Held by whoever delivers.
    turno: tokio::sync::Mutex<()>,
}

fn cerrojo(esperan: &Mutex<VecDeque<Reparto>>) -> MutexGuard<'_, VecDeque<Reparto>> {
    esperan.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Compartido {
    /// What is to be done with a message. `false` when it is to be retained and there is no room.
    pub(super) fn reparto(&self, publicacion: Publicacion) -> (Reparto, bool) {
        let publicacion = Arc::new(publicacion);
        let cabe = !publicacion.retain || self.retained.cabe(&publicacion);
        let retiene = (publicacion.retain && cabe).then(|| self.retained.viene(&publicacion));
        let destinos = self.sessions.indice.por_guardar(&publicacion, true, &self.parts.directorio);
        (Reparto { publicacion, destinos, retiene }, cabe)
    }

    /// Delivers a message whose changes are committed, and with one that is retained all that were before it.
    pub(super) async fn entrega(&self, entregable: Entregable) -> Result<(), Parado> {
        match entregable {
            Entregable::Suelto(reparto) => self.entrega_suelto(reparto).await,
            Entregable::EnFila(_) => self.avanza_fila().await,
        }
    }

    /// Delivers a message whose changes are committed and that is not retained.
    pub(super) async fn entrega_suelto(&self, reparto: Reparto) -> Result<(), Parado> {
        let (huerfanas, publicacion) = self.deja(reparto);
        self.heredan(huerfanas).await;
        self.rutea(publicacion).await
    }

    /// Puts a message whose changes are committed into the mailboxes of those whom it is kept for. Answers what
    /// it was to be for sessions that are over by now, and the message.
    pub(super) fn deja(&self, reparto: Reparto) -> (Vec<Entrega>, Arc<Publicacion>) {
        if reparto.retiene.is_some() {
            self.retained.pon(&reparto.publicacion);
        }
        let dejada = |(sesion, entrega): Destino| sesion.deja(entrega);
        (reparto.destinos.into_iter().filter_map(dejada).collect(), reparto.publicacion)
    }

    /// Gives a message to those who are there for it now, and whom it is not kept for.
    pub(super) async fn rutea(&self, publicacion: Arc<Publicacion>) -> Result<(), Parado> {
        // First: whoever subscribes meanwhile does not have it by both ways.
        let epoca = self.router.epoca();
        let dados = self.sessions.indice.da(&publicacion, &self.parts.directorio);
        self.router.publish(Ruteada { publicacion, dados, epoca }).await
    }

    /// Delivers what is in line now. What was committed before this was called is delivered when it returns.
    async fn avanza_fila(&self) -> Result<(), Parado> {
        let mut huerfanas = Vec::new();
        {
            let _turno = self.fila.turno.lock().await;
            let cuantos = cerrojo(&self.fila.esperan).len();
            for _ in 0..cuantos {
                let Some(reparto) = cerrojo(&self.fila.esperan).pop_front() else { break };
                let (suyas, publicacion) = self.deja(reparto);
                huerfanas.extend(suyas);
                self.rutea(publicacion).await?;
            }
        }
        self.heredan(huerfanas).await;
        Ok(())
    }

    /// Has a message committed, with `otros` of the same commit, and delivers it. `false` when it is not committed.
    pub(super) async fn guarda_y_entrega(
        &self,
        reparto: Reparto,
        otros: impl IntoIterator<Item = Cambio>,
    ) -> bool {
        let (cambios, entregable) = reparto.parte(&self.fila, otros);
        let guardado = self.guarda(cambios).await;
        if guardado {
            // `Parado` ends the process by way of the router's token.
            let _ = self.entrega(entregable).await;
        }
        guardado
    }

    /// Commits and delivers a message of the server's own, or of somebody who does not wait.
    pub(super) async fn difunde(&self, publicacion: Publicacion) {
        let (reparto, _) = self.reparto(publicacion);
        self.guarda_y_entrega(reparto, None).await;
    }

    /// Delivers a message to whoever is connected now, and keeps it for nobody.
    pub(super) async fn avisa(&self, publicacion: Publicacion) {
        let publicacion = Arc::new(publicacion);
        let destinos = self.sessions.indice.por_guardar(&publicacion, false, &self.parts.directorio);
        let _ = self.entrega_suelto(Reparto { publicacion, destinos, retiene: None }).await;
    }

    /// See [`Self::hereda`].
    pub(super) async fn heredan(&self, huerfanas: Vec<Entrega>) {
        for huerfana in huerfanas {
            self.hereda(huerfana).await;
        }
    }

    /// Gives what was on its way to a session that is over to another member of its shared subscription.
    async fn hereda(&self, mut huerfana: Entrega) {
        while let Some((sesion, entrega)) = self.sessions.indice.otro(&huerfana, &self.parts.directorio) {
            if !self.guarda(sesion.encola(&entrega).into_iter().collect::<Vec<_>>()).await {
                return;
            }
            // It may have ended meanwhile, as the one before it.
            match sesion.deja(entrega) {
                Some(otra_vez) => huerfana = otra_vez,
                None => return,
            }
        }
    }
}
