//! What is served now, and how it follows the files.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::gauge;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::certificate::Certificate;
use super::error::Result;
use super::files::{self, Version};
use super::revoked::Revoked;
use super::server::{self, Acceptor, Configs, Port};
use super::site::{Change, Site};
use crate::config::{ClientCerts, Config};
use crate::domain::{Clock, Timestamp};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks at the calendar.
const CALENDAR: Duration = Duration::from_secs(12 * 3600);

/// The certificates in force; cheap to clone. A handshake takes those of its moment, and a
/// connection keeps what it began with.
#[derive(Clone)]
pub struct Certs(Arc<Inner>);

struct Inner {
    site: Site,
    client_certs: ClientCerts,
    clock: Arc<dyn Clock>,
    served: ArcSwap<Served>,
    asked: Notify,
}

/// One reading of the files.
struct Served {
    configs: Configs,
    revoked: Revoked,
    versions: [Version; 4],
}

/// A client's certificate, checked against the site's authority.
#[derive(Clone)]
pub struct Peer {
    /// The common name: a device's `device_id`.
    pub common_name: Option<String>,
    /// As [`Certificate::serial`].
    pub serial: String,
    /// Good until.
    pub not_after: Timestamp,
    certs: Certs,
}

impl Peer {
    /// Whether it is on the list of those that are refused, as of now.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.certs.0.served.load().revoked.contains(&self.serial)
    }
}

impl Certs {
    /// Makes what is not there, renews what is due, and reads everything. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Site::ensure`]; and when what is there cannot be served with.
    pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let site = Site::new(&config.tls, clock.clone());
        for change in site.ensure()? {
            match change {
                Change::AuthorityMade => tracing::info!(
                    path = %site.path(files::CA).display(),
                    "this site's authority was made: devices that check the server need this file"
                ),
                Change::CertificateMade => {
                    tracing::info!(
                        names = site.server()?.names.join(", "),
                        "the server's certificate was made"
                    );
                }
                Change::CertificateRenewed(why) => renewed(&site, &why),
            }
        }
        for path in files::exposed_keys(site.dir()) {
            tracing::warn!(path = %path.display(), "anybody on this machine can read this private key: chmod 600 it");
        }
        let client_certs = config.mqtt.client_certs;
        let served = read(&site, client_certs, &clock)?;
        let inner =
            Inner { site, client_certs, clock, served: ArcSwap::from_pointee(served), asked: Notify::new() };
        Ok(Self(Arc::new(inner)))
    }

    /// For the MQTT port: asks clients for certificates as configured.
    #[must_use]
    pub fn mqtt(&self) -> Acceptor {
        Acceptor { certs: self.clone(), port: Port::Mqtt }
    }

    /// For the HTTP port.
    #[must_use]
    pub fn http(&self) -> Acceptor {
        Acceptor { certs: self.clone(), port: Port::Http }
    }

    /// Has the files read again, whether or not they look changed.
    pub fn reload(&self) {
        self.0.asked.notify_one();
    }

    /// Follows the files and the calendar until `stop`: a new certificate is served to whoever
    /// connects from then on, one that is broken is reported and the old one stays, what is due is
    /// renewed. `revoked` is told the name of a device when a certificate of its was revoked.
    pub async fn watch(self, revoked: impl Fn(&str) + Send, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut calendar = tokio::time::interval_at(tokio::time::Instant::now() + CALENDAR, CALENDAR);
        calendar.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What the files were when they could not be served with.
        let mut broken = None;
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.asked.notified() => true,
                _ = look.tick() => false,
                _ = calendar.tick() => {
                    self.renew_if_due().await;
                    false
                }
            };
            for device_id in self.look(asked, &mut broken).await {
                revoked(&device_id);
            }
        }
    }

    /// Serves what the files are now, if they changed; answers the devices that were revoked.
    async fn look(&self, asked: bool, broken: &mut Option<Broken>) -> Vec<String> {
        let before = self.0.served.load_full();
        let versions = files::versions(self.0.site.dir());
        let known = match broken {
            Some(broken) => broken.reported && broken.versions == versions,
            None => before.versions == versions,
        };
        if known && !asked {
            return Vec::new();
        }
        let certs = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let inner = &certs.0;
            read(&inner.site, inner.client_certs, &inner.clock)
        });
        match read.await {
            Ok(Ok(served)) => {
                *broken = None;
                let gone =
                    served.revoked.since(&before.revoked).filter_map(|r| r.device_id.clone()).collect();
                self.0.served.store(Arc::new(served));
                tracing::info!(dir = %self.0.site.dir().display(), "the certificates were read again");
                gone
            }
            Ok(Err(error)) => {
                // Two files cannot be replaced at one moment: the second look tells.
                let second = broken.as_ref().is_some_and(|b| b.versions == versions && !b.reported);
                if asked || second {
                    tracing::error!(%error, "the new certificates cannot be served with; the ones before stay in force");
                }
                *broken = Some(Broken { versions, reported: asked || second });
                Vec::new()
            }
            Err(e) => {
                tracing::error!(error = %e, "reading the certificates failed");
                Vec::new()
            }
        }
    }

    async fn renew_if_due(&self) {
        let site = self.0.site.clone();
        match tokio::task::spawn_blocking(move || site.renew_if_due().map(|why| (why, site))).await {
            Ok(Ok((Some(why), site))) => renewed(&site, &why),
            Ok(Ok((None, _))) => {}
            Ok(Err(error)) => tracing::error!(%error, "the server's certificate could not be renewed"),
            Err(error) => tracing::error!(%error, "renewing the server's certificate failed"),
        }
    }

    pub(super) fn configs(&self) -> Configs {
        self.0.served.load().configs.clone()
    }

    /// A certificate that a handshake has checked.
    pub(super) fn peer(&self, der: &[u8]) -> Result<Peer, String> {
        let Certificate { common_name, serial, not_after, .. } = Certificate::from_der(der)?;
        Ok(Peer { common_name, serial, not_after, certs: self.clone() })
    }
}

/// Files that could not be served with.
struct Broken {
    versions: [Version; 4],
    reported: bool,
}

fn read(site: &Site, client_certs: ClientCerts, clock: &Arc<dyn Clock>) -> Result<Served> {
    // Before the contents: what changes in between is read again at the next look.
    let versions = files::versions(site.dir());
    let configs = server::configs(site.dir(), client_certs, clock)?;
    let (certificate, revoked) = (site.server()?, site.revoked()?);
    if certificate.not_after <= clock.now() {
        tracing::error!(expired = %certificate.not_after, "the server's certificate has expired: clients refuse it");
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit 52 bits")]
    gauge!("alertrace_tls_certificate_not_after_seconds").set(certificate.not_after.secs() as f64);
    Ok(Served { configs, revoked, versions })
}

fn renewed(site: &Site, why: &str) {
    match site.server() {
        Ok(c) => {
            tracing::info!(why, serial = c.serial, expires = %c.not_after, "the server's certificate was renewed");
        }
        Err(error) => tracing::error!(%error, "the renewed certificate cannot be read"),
    }
}
