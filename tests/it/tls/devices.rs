//! A device's certificate signs it in, for as long as nobody took that back.

use std::path::{Path, PathBuf};

use reqwest::Method;

use super::{
    alive, closed, connect_without_password, connector, handshake, mosquitto, sign_in, tcp, temperatures,
};
use crate::support::server::command;
use crate::support::{Server, mqtt};

/// CONNACK's code for a client with this certificate, or `None` when TLS or the server ends it before.
async fn code(server: &Server, own: Option<(&Path, &Path)>, connect: &[u8]) -> Option<u8> {
    let mut stream = handshake(&connector(server, own), tcp(&server.mqtts).await).await.ok()?;
    sign_in(&mut stream, connect).await
}

/// `cert bundle`; answers the certificate's file and the key's.
fn bundle(server: &Server, id: &str) -> (PathBuf, PathBuf) {
    let said = server.run(&["cert", "bundle", "--device", id, "--out", "bundle"]);
    assert!(said.contains("mosquitto_pub --cafile bundle/ca.pem"), "{said}");
    let path = |end: &str| server.dir().join(format!("bundle/{id}.{end}"));
    (path("pem"), path("key"))
}

async fn eventually(mut is: impl AsyncFnMut() -> bool, what: &str) {
    for _ in 0..100 {
        if is().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn a_certificate_signs_its_device_in_until_it_is_revoked() {
    let server = Server::start().await;
    let (device, _other) = (server.device("d1").await, server.device("d2").await);
    let (certificate, key) = bundle(&server, "d1");
    let own = Some((certificate.as_path(), key.as_path()));

    // Somebody else's name, with or without that name's device; nobody's name; no certificate.
    assert_eq!(code(&server, own, &connect_without_password("d1", "d2")).await, Some(0x86));
    assert_eq!(code(&server, None, &connect_without_password("d1", "d1")).await, Some(0x86));
    assert_eq!(
        code(&server, own, &mqtt::connect(5, "d1", "d1", "wrong")).await,
        Some(0x86),
        "a password is checked"
    );
    let (nobodys, its_key) = bundle(&server, "nobody");
    assert_eq!(
        code(&server, Some((&nobodys, &its_key)), &connect_without_password("n", "")).await,
        Some(0x86)
    );

    let (file, key_file) = (certificate.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    let ca = server.ca().to_str().expect("UTF-8").to_owned();
    for (temperature, extra) in
        [(20.0, vec![]), (21.0, vec!["-u", "d1"]), (22.0, vec!["--tls-version", "tlsv1.2"])]
    {
        let args = [&["--cafile", &ca, "--cert", file, "--key", key_file][..], &extra].concat();
        let output = mosquitto(&server, "d1", temperature, &args).await;
        assert!(output.status.success(), "{extra:?}: {output:?}");
    }
    assert_eq!(temperatures(&server, &device).await, [20.0, 21.0, 22.0]);

    // Revoked: whoever is connected with it is cut off, and it does not come back.
    let connect = connect_without_password("d1", "");
    let mut stream = handshake(&connector(&server, own), tcp(&server.mqtts).await).await.expect("TLS");
    assert_eq!(sign_in(&mut stream, &connect).await, Some(0));
    assert!(alive(&mut stream).await);
    assert!(server.run(&["cert", "revoke", "--device", "d1"]).contains("refused from now on"));
    closed(&mut stream).await;
    assert_eq!(code(&server, own, &connect).await, Some(0x86));
    // Not even as company for a token, which is good by itself.
    let with_token = mqtt::connect(5, "d1", "d1", &device.token);
    assert_eq!(code(&server, own, &with_token).await, Some(0x86));
    assert_eq!(code(&server, None, &with_token).await, Some(0));
    assert!(server.run(&["cert", "list"]).contains("revoked"));
    // A new one is good.
    std::fs::remove_dir_all(server.dir().join("bundle")).expect("the bundles");
    let (certificate, key) = bundle(&server, "d1");
    assert_eq!(code(&server, Some((&certificate, &key)), &connect).await, Some(0));
}

#[tokio::test]
async fn a_certificate_that_is_refused_again_and_again_holds_back_nobody_else() {
    let server = Server::start().await;
    let (device, _other) = (server.device("d1").await, server.device("d2").await);
    let (mine, my_key) = bundle(&server, "d1");
    let (good, its_key) = bundle(&server, "d2");
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    let body = Some(serde_json::json!({ "estado": "inactivo" }));
    assert!(server.request(Method::PATCH, &path, &server.token, body).await.status().is_success());
    // Nobody says a name here: the certificate does.
    let connect = connect_without_password("c", "");
    let mut codes = vec![code(&server, Some((&mine, &my_key)), &connect).await];
    assert_eq!(codes[0], Some(0x86));
    while codes.last() != Some(&Some(0x9f)) {
        assert!(codes.len() < 20, "it is never held back: {codes:x?}");
        codes.push(code(&server, Some((&mine, &my_key)), &connect).await);
    }
    assert_eq!(code(&server, Some((&good, &its_key)), &connect).await, Some(0));
    // And its people see whose it is.
    let body = Some(serde_json::json!({ "estado": "activo" }));
    assert!(server.request(Method::PATCH, &path, &server.token, body).await.status().is_success());
    let seen = server.get("/api/v1/mqtt/clientes?device_id=d1").await;
    assert!(seen[0]["ultimo_error"]["motivo"].as_str().expect("text").contains("certificate"), "{seen}");
}

#[tokio::test]
async fn a_retired_devices_certificate_is_worth_nothing() {
    let server = Server::start().await;
    let device = server.device("d1").await;
    let (certificate, key) = bundle(&server, "d1");
    let own = Some((certificate.as_path(), key.as_path()));
    let connect = connect_without_password("d1", "d1");
    let mut stream = handshake(&connector(&server, own), tcp(&server.mqtts).await).await.expect("TLS");
    assert_eq!(sign_in(&mut stream, &connect).await, Some(0));
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    let answer = server.request(Method::DELETE, &path, &server.token, None).await;
    assert!(answer.status().is_success());
    closed(&mut stream).await;
    assert_eq!(code(&server, own, &connect).await, Some(0x86));
}

#[tokio::test]
async fn where_certificates_are_required_nobody_comes_in_without_one() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__MQTT__CLIENT_CERTS", "required");
        command
    })
    .await;
    let device = server.device("d1").await;
    let with_token = mqtt::connect(5, "d1", "d1", &device.token);
    assert_eq!(code(&server, None, &with_token).await, None);
    let (certificate, key) = bundle(&server, "d1");
    let own = Some((certificate.as_path(), key.as_path()));
    assert_eq!(code(&server, own, &with_token).await, Some(0));
    assert_eq!(code(&server, own, &connect_without_password("d1", "")).await, Some(0));
}

#[tokio::test]
async fn certificates_of_another_authority_or_out_of_date_are_refused() {
    let server = Server::start().await;
    let _device = server.device("d1").await;
    let connect = connect_without_password("d1", "d1");

    let elsewhere = tempfile::tempdir().expect("a directory");
    let foreign = |args: &[&str]| {
        let status = command(elsewhere.path()).args(args).status().expect("the binary starts");
        assert!(status.success());
    };
    foreign(&["cert", "init"]);
    foreign(&["cert", "bundle", "--device", "d1", "--out", "out"]);
    let path = |name: &str| elsewhere.path().join(name);
    assert_eq!(
        code(&server, Some((&path("out/d1.pem"), &path("out/d1.key"))), &connect).await,
        None,
        "foreign"
    );

    let read = |name: &str| std::fs::read_to_string(server.dir().join("certs").join(name)).expect("text");
    let authority = rcgen::KeyPair::from_pem(&read("ca.key")).expect("a key");
    let authority = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), authority).expect("an authority");
    for (year, expected) in [(2021, None), (2100, Some(0))] {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "d1");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(year, 1, 1));
        let key = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(path("own.pem"), params.signed_by(&key, &authority).expect("a certificate").pem())
            .expect("written");
        std::fs::write(path("own.key"), key.serialize_pem()).expect("written");
        assert_eq!(
            code(&server, Some((&path("own.pem"), &path("own.key"))), &connect).await,
            expected,
            "{year}"
        );
    }

    // The server's own certificate is good for serving, not for signing in.
    let (certificate, key) = (server.dir().join("certs/server.pem"), server.dir().join("certs/server.key"));
    assert_eq!(code(&server, Some((&certificate, &key)), &connect).await, None);
}

#[tokio::test]
async fn a_request_made_with_openssl_is_signed_under_the_devices_name_alone() {
    let server = Server::start().await;
    let _device = server.device("d1").await;
    let openssl = |args: &[&str]| {
        let output = std::process::Command::new("openssl")
            .args(args)
            .current_dir(server.dir())
            .output()
            .expect("openssl");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    for (n, newkey) in
        [["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"].as_slice(), &["rsa:2048"]].into_iter().enumerate()
    {
        let args =
            [&["req", "-new", "-nodes", "-keyout", "k.key", "-out", "k.csr", "-newkey"], newkey].concat();
        let asked = [
            "-subj",
            "/O=Evil/CN=d2",
            "-addext",
            "basicConstraints=CA:TRUE",
            "-addext",
            "subjectAltName=DNS:localhost",
        ];
        openssl(&[&args[..], &asked].concat());
        let out = format!("signed{n}.pem");
        let said =
            server.run(&["cert", "sign", "--csr", "k.csr", "--device", "d1", "--out", &out, "--days", "30"]);
        assert!(said.contains("certificate of d1"), "{said}");
        let text = openssl(&["x509", "-in", &out, "-noout", "-text"]);
        assert!(text.contains("Subject: CN = d1\n") || text.contains("Subject: CN=d1\n"), "{text}");
        assert!(text.contains("TLS Web Client Authentication") && text.contains("CA:FALSE"), "{text}");
        assert!(!text.contains("localhost") && !text.contains("Evil"), "{text}");
        openssl(&["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "certs/ca.pem", &out]);
        let (certificate, key) = (server.dir().join(&out), server.dir().join("k.key"));
        assert_eq!(
            code(&server, Some((&certificate, &key)), &connect_without_password("d1", "")).await,
            Some(0)
        );
    }
    openssl(&[
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        "certs/ca.pem",
        "certs/server.pem",
    ]);

    // Not a request; one whose signature is another's; a file that is there.
    std::fs::write(server.dir().join("no.csr"), "nothing").expect("written");
    let mut broken = std::fs::read_to_string(server.dir().join("k.csr")).expect("text");
    let at = broken.len() - 60;
    broken.replace_range(at..=at, if &broken[at..=at] == "A" { "B" } else { "A" });
    std::fs::write(server.dir().join("broken.csr"), broken).expect("written");
    for (csr, out) in [("no.csr", "new.pem"), ("broken.csr", "new.pem"), ("k.csr", "signed0.pem")] {
        let args = ["cert", "sign", "--csr", csr, "--device", "d1", "--out", out];
        let status = command(server.dir()).args(args).status().expect("the binary starts");
        assert_eq!(status.code(), Some(1), "{csr}");
    }
    assert!(!server.dir().join("new.pem").exists());
    let status = command(server.dir()).args(["cert", "revoke"]).status().expect("the binary starts");
    assert_eq!(status.code(), Some(2), "usage");

    // By serial number, as openssl prints it.
    let serial = openssl(&["x509", "-in", "signed1.pem", "-noout", "-serial"]);
    let serial = serial.trim().trim_start_matches("serial=").to_ascii_lowercase();
    server.run(&["cert", "revoke", "--serial", &serial]);
    let (certificate, key) = (server.dir().join("signed1.pem"), server.dir().join("k.key"));
    let connect = connect_without_password("d1", "");
    eventually(
        async || code(&server, Some((&certificate, &key)), &connect).await == Some(0x86),
        "it is refused",
    )
    .await;
}
