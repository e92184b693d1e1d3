//! What is logged as an error, to Sentry.
//!
//! Only that: no line below, no request, no person. Of the fields of a line those go that say what failed and where;
//! what a device sent and what anybody signs in with is in none of them. Sending is a thread's own business, behind a
//! bounded queue.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use sentry::integrations::tracing::ErrorLayer;
use sentry::protocol::{Context, Event};
use sentry::{ClientInitGuard, ClientOptions};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;

use super::Error;
use super::logs::Boxed;
use crate::config::Log;

/// Fields of a line that go with it.
const FIELDS: [&str; 8] = ["error", "motivo", "what", "id_sensor", "id_empresa", "route", "method", "status"];
/// Where sentry's layer puts them.
const CONTEXT: &str = "Rust Tracing Fields";

/// The layer that hands errors over, and what sends them, until it is dropped.
pub(super) fn layer(log: &Log, dsn: &secrecy::SecretString) -> Result<(Boxed, ClientInitGuard), Error> {
    let dsn = dsn.expose_secret().trim().parse().map_err(|_| Error::Sentry)?;
    let mut options = ClientOptions::default();
    options.dsn = Some(dsn);
    options.release = Some(concat!("alertrace@", env!("CARGO_PKG_VERSION")).into());
    options.environment = Some(log.environment.clone().into());
    options.send_default_pii = false;
    options.max_breadcrumbs = 0;
    options.before_send = Some(Arc::new(|event| Some(stripped(event))));
    let guard = sentry::init(options);
    let errors: Boxed = ErrorLayer::new().with_filter(LevelFilter::ERROR).boxed();
    Ok((errors, guard))
}

fn stripped(mut event: Event<'static>) -> Event<'static> {
    (event.user, event.request, event.server_name) = (None, None, None);
    if let Some(Context::Other(fields)) = event.contexts.get_mut(CONTEXT) {
        fields.retain(|name, _| FIELDS.contains(&name.as_str()));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_may_hold_anything_stays_here() {
        let fields = [("error", "gone"), ("password", "x"), ("payload", "{}")];
        let fields = fields.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        let mut event = Event { server_name: Some("host".into()), ..Event::default() };
        event.contexts.insert(CONTEXT.to_owned(), Context::Other(fields));
        let event = stripped(event);
        let Some(Context::Other(fields)) = event.contexts.get(CONTEXT) else { panic!("the fields") };
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["error"]);
        assert_eq!(event.server_name, None);
    }
}
