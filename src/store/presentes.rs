//! Who somebody is, kept for a moment: every request asks, and most ask what was asked just before.
//!
//! Inside this process it is exact. A transaction that may change it ([`Store::write`]; that of readings changes no
//! person) shuts this and empties it before its COMMIT is sent, and it opens again when the commit has answered. Where
//! nobody heard the answer (the caller was dropped, the connection broke) it stays shut until the next writing
//! transaction has begun: there is one at a time, so by then the other is decided. While it is shut everybody asks the
//! database, and what was begun to be read before or meanwhile is not kept. What another process wrote is seen after
//! [`VALE`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::trabajadores::{self, Presente};
use super::{Result, Store};

/// How long what is kept is believed: of another process (`psql`, a restored table) nothing is heard.
const VALE: Duration = Duration::from_secs(5);
/// People and sign-ins that are kept at most, some 200 bytes each.
const MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Presentes(Mutex<Dentro>);

#[derive(Debug)]
struct Dentro {
    abierto: bool,
    /// How often it was shut.
    vez: u64,
    guardados: HashMap<String, (Instant, Presente)>,
}

impl Default for Presentes {
    fn default() -> Self {
        Self(Mutex::new(Dentro { abierto: true, vez: 0, guardados: HashMap::new() }))
    }
}

/// What is kept, or when it is being read: what has begun at a time may be kept as long as that lasts.
enum Hallado {
    Guardado(Presente),
    Falta(Option<u64>),
}

impl Presentes {
    /// A commit is on its way; answers its number.
    pub(super) fn cierra(&self) -> u64 {
        let mut dentro = self.dentro();
        dentro.vez += 1;
        dentro.abierto = false;
        dentro.guardados.clear();
        dentro.vez
    }

    /// The commit of this number has answered. After that of a later one it says nothing.
    pub(super) fn abre(&self, vez: u64) {
        let mut dentro = self.dentro();
        dentro.abierto |= dentro.vez == vez;
    }

    /// A writing transaction has begun: whatever was on its way before is decided.
    pub(super) fn empieza_otra(&self) {
        self.dentro().abierto = true;
    }

    fn busca(&self, clave: &str, ahora: Instant) -> Hallado {
        let dentro = self.dentro();
        match dentro.guardados.get(clave) {
            Some((desde, presente)) if ahora.saturating_duration_since(*desde) < VALE => {
                Hallado::Guardado(*presente)
            }
            _ => Hallado::Falta(dentro.abierto.then_some(dentro.vez)),
        }
    }

    /// Keeps what was begun to be read at `desde`, the `vez` of then.
    fn guarda(&self, clave: String, presente: Presente, vez: Option<u64>, desde: Instant) {
        let mut dentro = self.dentro();
        if !dentro.abierto || vez != Some(dentro.vez) {
            return;
        }
        if dentro.guardados.len() >= MAX {
            dentro.guardados.clear();
        }
        dentro.guardados.insert(clave, (desde, presente));
    }

    // A panic while the lock is held cannot leave half a change: nothing under it panics.
    fn dentro(&self) -> MutexGuard<'_, Dentro> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The person behind an account, and whether the sign-in `familia` is open: [`trabajadores::present`], or what it
    /// said a moment ago.
    ///
    /// # Errors
    /// As there.
    pub async fn presente(&self, user_id: &str, familia: &str) -> Result<Option<Presente>> {
        let (clave, ahora) = (format!("{user_id} {familia}"), Instant::now());
        let vez = match self.presentes.busca(&clave, ahora) {
            Hallado::Guardado(presente) => return Ok(Some(presente)),
            Hallado::Falta(vez) => vez,
        };
        let mut tx = self.read().await?;
        let presente = trabajadores::present(&mut tx, user_id, familia).await?;
        tx.commit().await?;
        // Whoever has no person yet may have one at any moment, and asks seldom.
        if let Some(presente) = presente {
            self.presentes.guarda(clave, presente, vez, ahora);
        }
        Ok(presente)
    }
}

#[cfg(test)]
mod tests;
