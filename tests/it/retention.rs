//! What goes, what stays, and that nobody is kept waiting for it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::history::{eventually, midnight, moment, send};
use crate::store::python;
use crate::support::server::PASSWORD;
use crate::support::{Device, Server};

const MINUTE: i64 = 60_000_000;

/// Has `n` readings of a device stored, as an older version stored them: one every `every` minutes.
fn stored(server: &Server, device: &Device, from: i64, every: i64, n: i64) {
    let (id, hasta) = (device.id_sensor, from + n * every * MINUTE);
    let code = format!(
        "db.execute('BEGIN')\ndb.executemany('INSERT INTO lecturas VALUES (?,?,?)', (({id}, {from} + i * {every} * {MINUTE}, \
         '{{\"humedad_suelo\":40.25,\"temperatura\":' + str(i % 100) + '.5}}') for i in range({n})))\n\
         db.execute('INSERT INTO historia (id_sensor, relleno_hasta) VALUES ({id}, {hasta})')\ndb.execute('COMMIT')"
    );
    drop(python(server, &code).stdin.take());
}

fn sql(server: &Server, code: &str) {
    let mut child = python(server, code);
    drop(child.stdin.take());
    child.wait().expect("it ends");
}

/// How many readings of a device the whole of its past came to, by the day.
async fn counted(server: &Server, device: &Device) -> i64 {
    counted_by(server, device, &server.token).await
}

async fn counted_by(server: &Server, device: &Device, token: &str) -> i64 {
    let path = format!("/api/v1/sensores/{}/lecturas?intervalo=1d&variable=temperatura", device.id_sensor);
    let days = server.request(Method::GET, &path, token, None).await;
    let days: Value = days.json().await.expect("JSON");
    days.as_array().expect("an array").iter().map(|d| d["n"].as_i64().expect("a count")).sum()
}

async fn another_empresa(server: &Server) -> String {
    let body = json!({ "email": "otra@fundo.pe", "password": PASSWORD, "user_type": "empresa",
        "nombre_empresa": "Otra", "ruc": "20999999999", "telefono": "999999999" });
    assert_eq!(server.request(Method::POST, "/api/v1/auth/register", "", Some(body)).await.status(), 201);
    server.sign_in("otra@fundo.pe").await
}

#[tokio::test]
async fn what_is_past_its_days_goes_and_its_hours_stay_for_theirs() {
    let mut server = Server::start_with(|mut command| {
        command.env("ALERTRACE__STORE__RETENTION_DAYS", "30");
        command.env("ALERTRACE__STORE__HOURLY_RETENTION_DAYS", "60");
        command
    })
    .await;
    let device = server.device("s1").await;
    // Two readings an hour for 90 days, up to now or so.
    stored(&server, &device, midnight(90), 30, 90 * 48);
    let refused = format!(
        "db.executemany(\"INSERT INTO lecturas_rechazadas (id_sensor, recibida, motivo, contenido) \
         VALUES (?, ?, 'malformado', 'x')\", (({}, {} + i) for i in range(700)))",
        device.id_sensor,
        midnight(9)
    );
    sql(&server, &refused);
    server.kill_and_restart();
    let cut = |days: i64| midnight(0) - days * 1_440 * MINUTE;
    eventually(&server, &format!("SELECT COUNT(*) FROM lecturas WHERE ts < {}", cut(30)), "0");
    eventually(&server, &format!("SELECT COUNT(*) FROM horas WHERE hora < {}", cut(60)), "0");
    eventually(&server, "SELECT COUNT(*) FROM lecturas_rechazadas", "0");
    eventually(&server, "SELECT COUNT(*) FROM historia WHERE relleno_hasta IS NOT NULL", "0");
    let counts = server.request(Method::GET, "/metrics", "", None).await.text().await.expect("text");
    for counted in ["readings_total", "hours_total"].map(|what| format!("alertrace_purged_{what} ")) {
        let n = counts.lines().find_map(|l| l.strip_prefix(&counted)?.parse::<u64>().ok());
        assert!(n.is_some_and(|n| n > 0), "{counted}is {n:?}");
    }
    // Days 60 to 30 are there as hours, to the reading; what is younger as readings too.
    let days = format!(
        "/api/v1/sensores/{}/lecturas?intervalo=1d&variable=temperatura&desde={}&hasta={}",
        device.id_sensor,
        moment(cut(58)),
        moment(cut(1) - 1)
    );
    let days = server.get(&days).await;
    let days = days.as_array().expect("an array");
    assert_eq!(days.len(), 57);
    assert!(days.iter().all(|d| d["n"] == 48), "{days:?}");
    let raw = format!("/api/v1/sensores/{}/lecturas?orden=asc&limit=1", device.id_sensor);
    let oldest = server.get(&raw).await[0]["timestamp"].as_str().expect("a moment").to_owned();
    assert!(oldest >= moment(cut(30)) && oldest < moment(cut(28)), "{oldest}");
    // What comes late to an hour whose readings are gone is added to it.
    sql(&server, &format!("db.execute(\"UPDATE historia SET purgada = {}\")", cut(25)));
    sql(&server, &format!("db.execute(\"DELETE FROM lecturas WHERE ts < {}\")", cut(25)));
    let before = counted(&server, &device).await;
    send(&server, &device, &[json!({ "timestamp": moment(cut(28) + 7 * MINUTE), "temperatura": 149.5 })])
        .await;
    assert_eq!(counted(&server, &device).await, before + 1);
    let path = format!(
        "/api/v1/sensores/{}/estadisticas?desde={}&hasta={}",
        device.id_sensor,
        moment(cut(28)),
        moment(cut(27) - 1)
    );
    let day = server.get(&path).await;
    assert_eq!((&day["lecturas"], &day["variables"]["temperatura"]["max"]), (&json!(49), &json!(149.5)));
}

#[tokio::test]
async fn an_empresa_may_keep_its_readings_for_fewer_days_than_others() {
    let mut server = Server::start().await;
    let other = another_empresa(&server).await;
    let (short, long) = (server.device("s1").await, server.device_of("s2", &other).await);
    for device in [&short, &long] {
        stored(&server, device, midnight(20), 60, 20 * 24);
    }
    let me = "/api/v1/empresas/me";
    for wrong in
        [json!({ "retencion_dias": 0 }), json!({ "retencion_dias": 36_501 }), json!({ "razon_social": " " })]
    {
        let answer = server.request(Method::PATCH, me, &server.token, Some(wrong)).await;
        assert_eq!(answer.status(), 422);
    }
    let answer = server.request(Method::PATCH, me, &server.token, Some(json!({ "retencion_dias": 5 }))).await;
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!((&body["retencion_dias"], &body["retencion_horas_dias"]), (&json!(5), &Value::Null));
    assert_eq!(server.get(me).await, body);
    assert_eq!(server.request(Method::GET, me, "", None).await.status(), 401);
    server.kill_and_restart();
    let old = format!(
        "SELECT COUNT(*) FROM lecturas WHERE id_sensor = {} AND ts < {}",
        short.id_sensor,
        midnight(5)
    );
    eventually(&server, &old, "0");
    assert_eq!(counted(&server, &short).await, 20 * 24, "its hours stay");
    let kept = format!("SELECT COUNT(*) FROM lecturas WHERE id_sensor = {}", long.id_sensor);
    eventually(&server, &kept, &(20 * 24).to_string());
    // What would go at once is not taken; from the other it is.
    let old = json!({ "timestamp": moment(midnight(6) + MINUTE), "temperatura": 20 });
    send(&server, &long, std::slice::from_ref(&old)).await;
    let answer = reqwest::Client::new()
        .post(format!("http://{}/api/v1/sensores/data", server.http))
        .header("authorization", format!("Device {}:{}", short.id, short.token))
        .json(&old)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 422);
    let problem: Value = answer.json().await.expect("a problem");
    assert_eq!(problem["errors"][0]["mensaje"], "timestamp_antiguo");
    // Null: as long as the installation keeps any; what is not named stays.
    let answer =
        server.request(Method::PATCH, me, &server.token, Some(json!({ "retencion_dias": null }))).await;
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!((&body["retencion_dias"], &body["ruc"]), (&Value::Null, &json!("20123456789")));
    send(&server, &short, &[old]).await;
}

/// Starts the server again with a disk budget.
fn with_budget(server: &mut Server, gb: &str) {
    std::fs::create_dir_all(server.dir().join("config")).expect("a directory");
    let file = server.dir().join("config/alertrace.toml");
    std::fs::write(file, format!("[store]\nmax_gb = {gb}\n")).expect("a file");
    server.kill_and_restart();
}

async fn warning(server: &Server) -> Value {
    let answer = server.request(Method::GET, "/ready", "", None).await;
    assert_eq!(answer.status(), 200, "what is over its budget is ready all the same");
    answer.json::<Value>().await.expect("JSON")["warnings"][0]["code"].clone()
}

#[tokio::test]
async fn a_full_disk_budget_takes_the_oldest_of_the_largest_and_nothing_from_who_has_less() {
    let mut server = Server::start().await;
    let other = another_empresa(&server).await;
    let (large, small) = (server.device("s1").await, server.device_of("s2", &other).await);
    stored(&server, &large, midnight(100), 1, 90_000);
    stored(&server, &small, midnight(300), 10, 9_000);
    eventually(&server, "SELECT COUNT(*) FROM historia WHERE relleno_hasta IS NOT NULL", "0");
    // 90,000 readings of 60 bytes or so; a budget that holds most of it.
    with_budget(&mut server, "0.006");
    let used = "SELECT (SELECT page_count FROM pragma_page_count) * 4096 - (SELECT freelist_count FROM pragma_freelist_count) * 4096 < 5400000";
    let begun = Instant::now();
    let mut acknowledged = 0;
    // Ingest goes on all the while.
    while warning(&server).await != "disk_budget" {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing goes");
        send(&server, &small, &[json!({ "temperatura": 21 })]).await;
        acknowledged += 1;
    }
    eventually(&server, used, "1");
    assert_eq!(counted_by(&server, &small, &other).await, 9_000 + acknowledged);
    let rows = format!("SELECT COUNT(*) FROM lecturas WHERE id_sensor = {}", small.id_sensor);
    eventually(&server, &rows, &(9_000 + acknowledged).to_string());
    // The large one lost its oldest readings, to the day, and no figure.
    let path = format!("/api/v1/sensores/{}/lecturas?orden=asc&limit=1", large.id_sensor);
    let oldest = server.get(&path).await[0]["timestamp"].as_str().expect("a moment").to_owned();
    assert!(oldest > moment(midnight(100)) && oldest < moment(midnight(60)), "{oldest}");
    assert_eq!(counted(&server, &large).await, 90_000);
    // Its people are told, and nobody else's.
    let alerts = server.get("/api/v1/alertas?tipo=almacenamiento").await;
    assert_eq!(alerts.as_array().expect("an array").len(), 1, "{alerts}");
    assert_eq!((&alerts[0]["estado"], &alerts[0]["severidad"]), (&json!("pendiente"), &json!("media")));
    let theirs = server.request(Method::GET, "/api/v1/alertas?tipo=almacenamiento", &other, None).await;
    assert_eq!(theirs.json::<Value>().await.expect("JSON"), json!([]));
}

#[tokio::test]
async fn a_budget_that_cannot_be_kept_is_said_and_stops_nothing() {
    let mut server = Server::start().await;
    let device = server.device("s1").await;
    stored(&server, &device, midnight(40), 1, 20_000);
    eventually(&server, "SELECT COUNT(*) FROM historia WHERE relleno_hasta IS NOT NULL", "0");
    with_budget(&mut server, "0.0001");
    let begun = Instant::now();
    while warning(&server).await != "disk_budget_spent" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not said");
        send(&server, &device, &[json!({ "temperatura": 21 })]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    send(&server, &device, &[json!({ "temperatura": 22 })]).await;
    // What is new stays, whatever the budget.
    let newest = server.get(&format!("/api/v1/sensores/{}/lecturas?limit=1", device.id_sensor)).await;
    assert_eq!(newest[0]["temperatura"], 22.0);
    // The file is no larger than it has to be.
    eventually(&server, "SELECT (SELECT freelist_count FROM pragma_freelist_count) <= 1024", "1");
}

#[tokio::test]
async fn a_sensor_that_is_purged_leaves_no_hour_behind() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    stored(&server, &device, midnight(40), 1, 20_000);
    eventually(&server, "SELECT COUNT(*) FROM historia WHERE relleno_hasta IS NOT NULL", "0");
    let path = format!("/api/v1/sensores/{}?purgar=true", device.id_sensor);
    assert_eq!(server.request(Method::DELETE, &path, &server.token, None).await.status(), 204);
    for table in ["lecturas", "lecturas_hora", "horas", "horas_pendientes", "historia"] {
        eventually(&server, &format!("SELECT COUNT(*) FROM {table}"), "0");
    }
}
