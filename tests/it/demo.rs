//! `alertrace demo` does what its welcome says.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn the_demo_prints_a_login_that_works_and_sensors_that_send() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_alertrace"))
        .args(["demo", "--seconds", "60"])
        .env("ALERTRACE__HTTP__LISTEN", "127.0.0.1:0")
        .env("ALERTRACE__MQTT__LISTEN", "127.0.0.1:0")
        .env("ALERTRACE__MQTT__TLS_LISTEN", "127.0.0.1:0")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (mut docs, mut email, mut password) = (String::new(), String::new(), String::new());
    while let Some(line) = lines.next_line().await.expect("text") {
        let mut words = line.split_whitespace();
        let (key, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        match key {
            "API" => docs = value,
            "Login" => email = value,
            "Password" => password = value,
            "mosquitto_sub" => break,
            _ => {}
        }
    }
    let http = reqwest::Client::new();
    let api = docs.trim_end_matches("/docs").to_owned() + "/api/v1";
    let login = json!({ "email": email, "password": password });
    let answer = http.post(format!("{api}/auth/login")).json(&login).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let token =
        answer.json::<Value>().await.expect("JSON")["access_token"].as_str().expect("a token").to_owned();
    let (mut sent, mut drifted, mut dropped) = (false, false, false);
    for _ in 0..450 {
        let request = http.get(format!("{api}/sensores/with-readings")).bearer_auth(&token);
        let sensores: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        let request = http.get(format!("{api}/alertas")).bearer_auth(&token);
        let alertas: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        // Not all at once: one of them drops off and returns.
        let sending = |s: &&Value| s["temperatura"].is_f64();
        let sensores = sensores.as_array().expect("a list");
        sent |= sensores.iter().filter(sending).count() == 6;
        dropped |= sensores.iter().any(|s| s["device_id"] == "demo-lote-sur" && s["conexion"] == "offline");
        drifted |= alertas.as_array().expect("a list").iter().any(|a| a["device_id"] == "demo-invernadero-2");
        if sent && drifted && dropped {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("sent: {sent}, one drifted: {drifted}, one dropped off: {dropped}");
}
