//! The directory of certificates, through `Site` and `Certs`, with a clock that is moved.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{self, Config, Sources};
use crate::domain::{BUILD_DATE, DeviceId, ManualClock, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::new(BUILD_DATE.plus(DAY))) }
    }

    fn config(&self, names: &str) -> Config {
        let dir = self.dir().to_str().unwrap().to_owned();
        let env = [("ALERTRACE__TLS__DIR", dir), ("ALERTRACE__TLS__NAMES", names.to_owned())];
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        config::load(&Sources { env, ..Sources::default() }).unwrap()
    }

    fn site(&self, names: &str) -> Site {
        Site::new(&self.config(names).tls, self.clock.clone())
    }

    fn open(&self) -> Result<Certs> {
        Certs::open(&self.config(""), self.clock.clone())
    }

    fn dir(&self) -> std::path::PathBuf {
        self.dir.path().join("certs")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir().join(name)).unwrap()
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.dir().join(name)).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

#[test]
fn the_first_start_makes_everything_and_the_second_nothing() {
    let bench = Bench::new();
    let site = bench.site("alertrace.finca.example,203.0.113.7");
    assert_eq!(site.ensure().unwrap(), [Change::AuthorityMade, Change::CertificateMade]);
    assert_eq!(site.ensure().unwrap(), []);
    assert_eq!(site.init().unwrap(), []);
    for (name, expected) in
        [("ca.pem", 0o644), ("ca.key", 0o600), ("server.pem", 0o644), ("server.key", 0o600)]
    {
        assert_eq!(mode(&bench.dir().join(name)), expected, "{name}");
    }
    assert_eq!(mode(&bench.dir()), 0o700);
    let (server, authority) = (site.server().unwrap(), site.authority_certificate().unwrap().unwrap());
    for name in ["alertrace.finca.example", "203.0.113.7", "localhost", "127.0.0.1", "::1"] {
        assert!(server.has_name(name), "{name} in {:?}", server.names);
    }
    assert!(server.is_issued_by(&authority) && authority.is_issued_by(&authority));
    assert!(!authority.is_issued_by(&server));
    let days = |c: &Certificate| c.not_after.since(c.not_before).as_secs() / 86_400;
    assert_eq!((days(&server), days(&authority)), (397, 3_653));
}

#[test]
fn the_certificate_is_renewed_in_time_and_keeps_its_key() {
    let bench = Bench::new();
    let site = bench.site("");
    site.ensure().unwrap();
    let (first, key) = (site.server().unwrap(), bench.text("server.key"));
    bench.clock.set(first.not_after.minus(31 * DAY));
    assert_eq!(site.ensure().unwrap(), []);
    bench.clock.set(first.not_after.minus(30 * DAY));
    assert!(
        matches!(&site.ensure().unwrap()[..], [Change::CertificateRenewed(why)] if why.contains("expires"))
    );
    let second = site.server().unwrap();
    assert_ne!(second.serial, first.serial);
    assert_eq!((second.public_key, bench.text("server.key")), (first.public_key.clone(), key));
    assert_eq!(site.ensure().unwrap(), []);

    let with_name = bench.site("new.example");
    assert!(
        matches!(&with_name.ensure().unwrap()[..], [Change::CertificateRenewed(why)] if why.contains("new.example"))
    );
    assert_eq!(with_name.ensure().unwrap(), []);
    assert_ne!(site.renew(true).unwrap().public_key, first.public_key);
    bench.open().unwrap();
}

#[test]
fn no_certificate_outlives_its_authority() {
    let bench = Bench::new();
    let site = bench.site("");
    site.ensure().unwrap();
    let end = site.authority_certificate().unwrap().unwrap().not_after;
    bench.clock.set(end.minus(10 * DAY));
    assert_eq!(site.ensure().unwrap().len(), 1);
    assert_eq!(site.server().unwrap().not_after, end);
    assert_eq!(site.ensure().unwrap(), [], "it is no use to renew it again");
    bench.clock.set(end);
    assert!(matches!(site.renew(false), Err(Error::AuthorityExpires(_))));
}

#[test]
fn a_clock_before_this_programs_making_is_not_believed() {
    let bench = Bench::new();
    bench.clock.set(Timestamp::MIN);
    let site = bench.site("");
    site.ensure().unwrap();
    assert!(site.server().unwrap().not_before >= BUILD_DATE.minus(DAY));
}

#[test]
fn a_set_with_something_missing_is_an_error_that_says_what_to_do() {
    for (missing, named) in [
        (&["server.key"][..], "has server.pem but no server.key"),
        (&["server.pem"], "has server.key but no server.pem"),
        (&["ca.pem"], "has ca.key but no ca.pem"),
        (&["ca.key", "server.pem", "server.key"], "has ca.pem but no ca.key"),
    ] {
        let bench = Bench::new();
        let site = bench.site("");
        site.ensure().unwrap();
        for name in missing {
            bench.remove(name);
        }
        let message = site.ensure().unwrap_err().to_string();
        assert!(message.contains(named) && message.contains("put"), "{message}");
        assert!(bench.open().is_err());
    }
    // What is left of an authority whose key is kept elsewhere is enough to serve with.
    let bench = Bench::new();
    let site = bench.site("");
    site.ensure().unwrap();
    bench.remove("ca.key");
    assert_eq!(site.ensure().unwrap(), []);
    bench.open().unwrap();
    assert!(matches!(
        site.bundle(&id("d1"), 30, bench.dir.path()),
        Err(Error::NoAuthority { file: "ca.key", .. })
    ));
    assert!(matches!(site.renew(false), Err(Error::NoAuthority { .. })));
}

#[test]
fn an_operators_own_certificate_is_used_and_left_alone() {
    let (elsewhere, bench) = (Bench::new(), Bench::new());
    elsewhere.site("own.example").ensure().unwrap();
    std::fs::create_dir(bench.dir()).unwrap();
    for name in ["server.pem", "server.key"] {
        std::fs::copy(elsewhere.dir().join(name), bench.dir().join(name)).unwrap();
    }
    let before = bench.text("server.pem");
    bench.open().unwrap();
    let names: Vec<_> = std::fs::read_dir(bench.dir()).unwrap().collect();
    assert_eq!(names.len(), 2, "nothing was added");
    // Required certificates need something to check them against.
    let mut config = bench.config("");
    config.mqtt.client_certs = config::ClientCerts::Required;
    let error = Certs::open(&config, bench.clock.clone()).err().unwrap().to_string();
    assert!(error.contains("cert init"), "{error}");
    let site = bench.site("missing.example");
    assert_eq!(site.init().unwrap(), [Change::AuthorityMade]);
    bench.clock.advance(380 * DAY);
    assert_eq!(site.ensure().unwrap(), []);
    assert!(matches!(site.renew(false), Err(Error::NotOurs(_))));
    assert_eq!(bench.text("server.pem"), before);
    // A key that is another's is named.
    std::fs::copy(bench.dir().join("ca.key"), bench.dir().join("server.key")).unwrap();
    let error = bench.open().err().unwrap().to_string();
    assert!(error.contains("is not the key of"), "{error}");
}

#[test]
fn devices_are_bundled_listed_and_revoked() {
    let bench = Bench::new();
    let site = bench.site("");
    site.ensure().unwrap();
    let out = bench.dir.path().join("out");
    let bundle = site.bundle(&id("d1"), 730, &out).unwrap();
    for path in [&bundle.key_path, &bundle.certificate_path, &bundle.ca_path] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    assert_eq!(bundle.certificate.common_name.as_deref(), Some("d1"));
    assert!(bundle.certificate.names.is_empty());
    assert!(site.bundle(&id("d1"), 730, &out).is_err(), "a key is not written over");
    site.bundle(&id("d2"), 730, &out).unwrap();
    bench.clock.advance(DAY);
    site.bundle(&id("d1"), 730, &bench.dir.path().join("again")).unwrap();
    let listed =
        |site: &Site| site.devices().unwrap().into_iter().filter_map(|c| c.common_name).collect::<Vec<_>>();
    assert_eq!(listed(&site), ["d1", "d1", "d2"]);

    assert!(matches!(site.revoke_device(&id("d3")), Err(Error::Request(_))));
    assert!(matches!(site.revoke_serial("no"), Err(Error::Request(_))));
    assert_eq!(site.revoke_device(&id("d1")).unwrap().len(), 2);
    assert_eq!(site.revoke_device(&id("d1")).unwrap().len(), 0);
    assert_eq!(site.revoke_serial("00:ab:cd").unwrap()[0].device_id, None);
    let revoked = site.revoked().unwrap();
    assert!(revoked.contains(&bundle.certificate.serial) && revoked.contains("ABCD"));
    assert_eq!(revoked.list().len(), 3);
    // A list that cannot be read must not let anybody in.
    std::fs::write(bench.dir().join("revoked.json"), "[").unwrap();
    assert!(bench.open().is_err());
}
