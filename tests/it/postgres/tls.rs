//! TLS to the server, in libpq's words.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::postgres::{Cluster, is_root};
use crate::support::server::{Place, create_account};

/// An authority `{name}.pem`, and a server's certificate by it for `san`: `{name}-server.pem`, `.key`.
pub fn certificates(dir: &Path, name: &str, san: &str) {
    let openssl = |args: &[&str]| {
        let status = Command::new("openssl").current_dir(dir).args(args).stderr(Stdio::null()).status();
        assert!(status.expect("openssl runs").success(), "{args:?}");
    };
    let (ca, ca_key) = (format!("{name}.pem"), format!("{name}.key"));
    let (pem, key, csr) =
        (format!("{name}-server.pem"), format!("{name}-server.key"), format!("{name}-server.csr"));
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let subject = format!("/CN={name}");
    openssl(
        &[&new[..], &["-x509", "-days", "2", "-subj", &subject, "-keyout", &ca_key, "-out", &ca]].concat(),
    );
    openssl(&[&new[..], &["-subj", "/CN=postgres", "-keyout", &key, "-out", &csr]].concat());
    std::fs::write(dir.join("ext"), format!("subjectAltName={san}\n")).expect("a file");
    openssl(&[
        "x509",
        "-req",
        "-in",
        &csr,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "ext",
        "-out",
        &pem,
    ]);
}

fn serve_with(cluster: &Cluster, dir: &Path, name: &str) {
    for (from, to) in [("pem", "server.crt"), ("key", "server.key")] {
        let to = cluster.data().join(to);
        std::fs::copy(dir.join(format!("{name}-server.{from}")), &to).expect("a copy");
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&to).status().expect("chown runs").success());
        }
        assert!(Command::new("chmod").arg("600").arg(&to).status().expect("chmod runs").success());
    }
    cluster.stop_server("fast");
    cluster.start_server();
}

#[test]
fn only_the_server_that_was_asked_for_gets_a_password() {
    let (cluster, dir) = (Cluster::own(), tempfile::tempdir().expect("a temporary directory"));
    certificates(dir.path(), "good", "DNS:localhost,IP:127.0.0.1");
    certificates(dir.path(), "named", "DNS:db.example");
    cluster.sql("ALTER SYSTEM SET ssl = on");
    std::fs::write(cluster.data().join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n")
        .expect("a file");
    serve_with(&cluster, dir.path(), "good");

    let mut account = 0;
    let mut opens = |query: &str, ca: Option<&str>| {
        account += 1;
        let mut place: Place = vec![("DATABASE_URL", format!("{}{query}", cluster.url()))];
        place.extend(ca.map(|ca| ("DATABASE_CA", dir.path().join(ca).display().to_string())));
        let home = tempfile::tempdir().expect("a temporary directory");
        let email = format!("a{account}@fundo.pe");
        create_account(home.path(), &place, &email, &format!("201234567{account:02}"))
    };
    // Plain text is refused by the server; each of the others is as strict as it says.
    assert!(!opens("?sslmode=disable", None));
    assert!(opens("", None), "prefer");
    assert!(opens("?sslmode=require", None));
    assert!(opens("?ssl=require", None), "as asyncpg says it");
    assert!(opens("", Some("good.pem")), "verify-full");
    assert!(opens("?sslmode=verify-full", Some("good.pem")));
    assert!(!opens("", Some("named.pem")), "another authority");
    assert!(!opens("?sslmode=require", Some("named.pem")), "require with an authority checks it");
    assert!(!opens("?sslmode=verify-ca", None), "an authority that nobody knows");
    serve_with(&cluster, dir.path(), "named");
    assert!(opens("?sslmode=verify-ca", Some("named.pem")), "any name will do");
    assert!(!opens("", Some("named.pem")), "another name");
}
