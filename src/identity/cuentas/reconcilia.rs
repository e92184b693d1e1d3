//! Registrations with a provider elsewhere that did not end: what they made is removed, at the start and from then on.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Cuentas, Error};
use crate::domain::Timestamp;
use crate::identity::provider::Provider;
use crate::identity::supabase::Supabase;
use crate::store::altas::{self, Alta};
use crate::store::trabajadores;

/// How often registrations that have not ended are looked at.
const CADA: Duration = Duration::from_secs(60);
/// After which one is not under way any more: far above what a request may take.
const MUERTA: Duration = Duration::from_secs(600);
/// How long an account may take to show there after nobody answered.
const TARDE: Duration = Duration::from_secs(120);
/// How long an account that it does not let go of is tried to be removed.
const RENUNCIA: Duration = Duration::from_secs(86_400);

impl Cuentas {
    /// Removes what a registration left, unless it was completed after all.
    pub(super) async fn deshaz(&self, s: &Supabase, alta: &Alta) -> Result<(), Error> {
        let user_id = match &alta.user_id {
            Some(user_id) => Some(user_id.clone()),
            None if s.administra() => s.busca(&alta.id_alta).await?,
            None => None,
        };
        let Some(user_id) = user_id else {
            // An account may show late after nobody answered.
            let tarde = self.0.clock.now().since(Timestamp::clamped(alta.creada)) > TARDE;
            if tarde {
                tracing::warn!(
                    id_alta = alta.id_alta,
                    "nobody answered a registration, and no account of it shows in Supabase; one that shows later stays"
                );
            }
            return if tarde || !s.administra() { Ok(self.termina(&alta.id_alta).await?) } else { Ok(()) };
        };
        // From the look at it until it is gone nobody makes it theirs.
        let _nadie = self.0.adopciones.write().await;
        let mut tx = self.0.store.read().await?;
        let completa = trabajadores::by_user_id(&mut tx, &user_id).await?.is_some();
        tx.commit().await?;
        if completa {
            tracing::info!(user_id, "a registration was complete after all");
        } else if s.administra() {
            s.borra(&user_id).await?;
            tracing::info!(user_id, "a registration that did not end was undone");
        } else {
            tracing::warn!(
                user_id,
                "an account without a person stays in Supabase: there is no identity.supabase_service_role_key to \
                 remove it with; whoever it belongs to can register again with the same e-mail and password"
            );
        }
        Ok(self.termina(&alta.id_alta).await?)
    }

    /// Undoes what registrations left that did not end: those of before the start at once, others when they
    /// have failed or cannot be under way any more. Ends with `parar`.
    pub async fn reconcilia(self, parar: CancellationToken) {
        let Provider::Supabase(s) = &self.0.provider else { return parar.cancelled().await };
        let work = async {
            s.prepara().await;
            let mut antes = self.0.clock.now();
            let mut cada = tokio::time::interval(CADA);
            loop {
                cada.tick().await;
                if let Err(e) = self.reconcilia_una_vez(s, antes).await {
                    tracing::warn!(error = %e, "registrations that did not end cannot be undone now");
                }
                antes = antes.max(self.0.clock.now().minus(MUERTA));
            }
        };
        // What is dropped half-way is in its row.
        tokio::select! {
            () = parar.cancelled() => {}
            () = work => {}
        }
    }

    async fn reconcilia_una_vez(&self, s: &Supabase, antes: Timestamp) -> Result<(), Error> {
        let mut tx = self.0.store.read().await?;
        let pendientes = altas::pending(&mut tx, antes).await?;
        tx.commit().await?;
        for alta in &pendientes {
            let Err(e) = self.deshaz(s, alta).await else { continue };
            tracing::warn!(id_alta = alta.id_alta, error = %e, "a registration that did not end cannot be undone now");
            // It is not there: nor is it for the others.
            if matches!(e, Error::ProveedorAusente(_) | Error::Store(_)) {
                return Err(e);
            }
            let edad = self.0.clock.now().since(Timestamp::clamped(alta.creada));
            if matches!(e, Error::ProveedorRoto) && edad > RENUNCIA {
                tracing::error!(
                    user_id = alta.user_id,
                    "Supabase has not let an account without a person be removed for a day: remove it there by hand"
                );
                self.termina(&alta.id_alta).await?;
            }
        }
        Ok(())
    }
}
