//! What contract sections 2 and 3 say field by field, and what their rows promise that no other test asks.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::people::{delete, get, list, patch, person, post, put, refusal, sign_in};
use crate::history::{midnight, moment, send};
use crate::support::postgres::{Database, of_this_run};
use crate::support::server::{EMAIL, PASSWORD};
use crate::support::{Client, Server};

const ME: &str = "id id_trabajador user_id email nombre apellido apellidos dni telefono rol user_type id_empresa \
                  empresa_nombre nombre_empresa ruc";
const SENSOR: &str = "id_sensor device_id nombre tipo id_empresa id_cultivo activo estado conexion intervalo_lectura \
                      ultima_lectura bateria_nivel ubicacion_sensor coordenadas_lat coordenadas_lng \
                      fecha_instalacion timestamp_lectura ph temperatura humedad_aire humedad_suelo ph_suelo \
                      radiacion_solar conductividad nitrogeno fosforo potasio co2 bateria senal";
const ALERTA: &str = "id_alerta id_sensor device_id tipo_alerta severidad titulo mensaje valor_actual valor_umbral \
                      unidad estado resuelta vista historica fecha_creacion fecha_resolucion resuelta_por notas";
const TRABAJADOR: &str = "id_trabajador user_id nombre apellido dni email telefono rol activo fecha_contratacion \
                          sensores_asignados";

fn has(value: &Value, fields: &str) {
    let found: BTreeSet<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(found, fields.split_whitespace().collect(), "{value}");
}

#[tokio::test]
async fn answers_have_the_fields_that_the_front_end_reads_and_no_other() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"ph":13,"bateria":80}"#).await, 0);
    has(&server.get("/api/v1/auth/me").await, ME);
    has(&sign_in(&server, EMAIL).await, &format!("{ME} access_token token_type refresh_token expires_in"));
    for path in ["/api/v1/sensores", "/api/v1/sensores/with-readings"] {
        let sensor = server.get(path).await[0].clone();
        has(&sensor, SENSOR);
        assert_eq!(
            (&sensor["ph"], &sensor["ph_suelo"]),
            (&json!(13.0), &json!(13.0)),
            "one repeats the other"
        );
        assert_eq!((&sensor["bateria_nivel"], &sensor["co2"]), (&json!(80.0), &Value::Null));
        assert_eq!(sensor["timestamp_lectura"], sensor["ultima_lectura"]);
        assert!(sensor["timestamp_lectura"].is_string(), "{sensor}");
    }
    let alert = server.get("/api/v1/alertas").await[0].clone();
    has(&alert, ALERTA);
    assert_eq!((&alert["tipo_alerta"], &alert["historica"]), (&json!("ph_suelo"), &json!(false)));
    has(&server.get("/api/v1/trabajadores").await[0], TRABAJADOR);
}

#[tokio::test]
async fn an_alert_is_seen_by_either_name_and_one_of_the_past_is_closed_and_notifies_nobody() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    for (value, name) in [(45, "viewed"), (45, "read")] {
        send(&server, &device, &[json!({ "temperatura": value })]).await;
        let alert = server.get("/api/v1/alertas").await[0].clone();
        assert_eq!(alert["vista"], false);
        let path = format!("/api/v1/alertas/{}", alert["id_alerta"]);
        let seen = patch(&server, &format!("{path}/{name}"), &server.token, json!({})).await;
        assert_eq!(seen.json::<Value>().await.expect("JSON")["vista"], true, "{name}");
        assert_eq!(server.get(&path).await["vista"], true);
        // The next is another.
        assert_eq!(patch(&server, &path, &server.token, json!({ "estado": "ignorada" })).await.status(), 200);
    }
    let mut socket = super::live_as(&server, &server.token).await;
    crate::alerts::next(&mut socket, "snapshot").await;
    send(&server, &device, &[json!({ "temperatura": 20 })]).await;
    let old = json!({ "timestamp": moment(midnight(1)), "humedad_aire": 1 });
    send(&server, &device, &[old]).await;
    assert_eq!(server.get("/api/v1/alertas/count/pendientes").await["pendientes"], 0);
    let closed = server.get("/api/v1/alertas?estado=resuelta").await;
    let excursion = closed.as_array().expect("a list").iter().find(|a| a["tipo_alerta"] == "humedad_aire");
    let excursion = excursion.expect("it stays visible");
    assert_eq!((&excursion["historica"], &excursion["resuelta"]), (&json!(true), &json!(true)));
    assert_eq!(
        server.get("/api/v1/sensores").await[0]["humedad_aire"],
        Value::Null,
        "it moves no newest value"
    );
    // What comes next on the socket is no alert.
    send(&server, &device, &[json!({ "temperatura": 21 })]).await;
    loop {
        let said = crate::alerts::next_of_any(&mut socket).await;
        assert_ne!(said["type"], "alerta", "{said}");
        if said["data"]["temperatura"] == 21.0 {
            break;
        }
    }
}

#[tokio::test]
async fn every_flat_threshold_of_the_older_form_holds() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let flat = json!({ "humedad_aire_min": 40, "humedad_aire_max": 60, "humedad_suelo_min": 30,
        "humedad_suelo_max": 50, "ph_min": 6, "ph_max": 7, "radiacion_min": 10, "radiacion_max": 500 });
    let set = put(&server, "/api/v1/umbrales", &server.token, flat.clone()).await;
    assert_eq!(set.status(), 200);
    let now = server.get("/api/v1/umbrales").await;
    for (name, value) in flat.as_object().expect("an object") {
        assert_eq!(now[name].as_f64(), value.as_f64(), "{name}");
    }
    assert_eq!(now["radiacion_solar"], json!({ "min": 10.0, "max": 500.0 }));
    let inside = json!({ "humedad_aire": 50, "humedad_suelo": 40, "ph": 6.5, "radiacion_solar": 100 });
    send(&server, &device, &[inside]).await;
    assert_eq!(server.get("/api/v1/alertas/count/pendientes").await["pendientes"], 0);
    let outside = json!({ "humedad_aire": 61, "humedad_suelo": 29, "ph": 7.5, "radiacion_solar": 501 });
    send(&server, &device, &[outside]).await;
    let open = server.get("/api/v1/alertas").await;
    let kinds: BTreeSet<&str> =
        open.as_array().expect("a list").iter().filter_map(|a| a["tipo_alerta"].as_str()).collect();
    assert_eq!(kinds, ["humedad_aire", "humedad_suelo", "ph_suelo", "radiacion_solar"].into());
    let wrong =
        put(&server, "/api/v1/umbrales", &server.token, json!({ "temp_min": { "min": 1, "max": 2 } })).await;
    assert_eq!(refusal(wrong).await, (422, "validation_failed".into()), "a flat name is a number's");
}

#[tokio::test]
async fn null_clears_what_may_be_without_a_value_and_is_refused_for_the_rest() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    send(&server, &device, &[json!({ "temperatura": 45 })]).await;
    let alert = format!("/api/v1/alertas/{}", server.get("/api/v1/alertas").await[0]["id_alerta"]);
    let crop = post(&server, "/api/v1/cultivos", &server.token, json!({ "tipo_cultivo": "Palta" })).await;
    let crop = crop.json::<Value>().await.expect("JSON")["id_cultivo"].clone();
    let sensor = format!("/api/v1/sensores/{}", device.id_sensor);
    for (path, set, cleared) in [
        (&alert, json!({ "estado": "en_proceso", "notas": "va un técnico" }), "notas"),
        (&sensor, json!({ "id_cultivo": crop }), "id_cultivo"),
        (&sensor, json!({ "ubicacion_sensor": "Lote 1" }), "ubicacion_sensor"),
        (&"/api/v1/empresas/me".to_owned(), json!({ "email": "e@x.pe" }), "email"),
        (&"/api/v1/empresas/me".to_owned(), json!({ "telefono": "999" }), "telefono"),
        (&"/api/v1/empresas/me".to_owned(), json!({ "retencion_dias": 90.0 }), "retencion_dias"),
        (&"/api/v1/empresas/me".to_owned(), json!({ "retencion_horas_dias": 900 }), "retencion_horas_dias"),
    ] {
        let change = async |body: Value| {
            let answer = patch(&server, path, &server.token, body).await;
            assert_eq!(answer.status(), 200, "{path} {cleared}");
            answer.json::<Value>().await.expect("JSON")[cleared].clone()
        };
        assert!(!change(set.clone()).await.is_null(), "{cleared}");
        let mut other = set;
        other.as_object_mut().expect("an object").remove(cleared);
        assert!(!change(other.clone()).await.is_null(), "{cleared} is absent and stays");
        other[cleared] = Value::Null;
        assert!(change(other).await.is_null(), "{cleared} is null and is cleared");
    }
    for (path, field) in [
        (&sensor, "nombre"),
        (&sensor, "tipo"),
        (&sensor, "estado"),
        (&sensor, "intervalo_lectura"),
        (&"/api/v1/empresas/me".to_owned(), "razon_social"),
        (&format!("/api/v1/cultivos/{crop}"), "tipo_cultivo"),
        (&alert, "estado"),
    ] {
        let answer = patch(&server, path, &server.token, json!({ field: null })).await;
        assert_eq!(answer.status(), 422, "{field}");
        assert_eq!(answer.json::<Value>().await.expect("JSON")["errors"][0]["campo"], field);
    }
}

#[tokio::test]
async fn a_whole_number_is_taken_however_a_program_writes_it() {
    let server = Server::start().await;
    let text = r#"{"device_id":"s1","nombre":"S","tipo":"t","intervalo_lectura":3e2}"#;
    let answer = reqwest::Client::new()
        .post(format!("http://{}/api/v1/sensores", server.http))
        .bearer_auth(&server.token)
        .header("content-type", "application/json")
        .body(text);
    let made: Value = answer.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(made["sensor"]["intervalo_lectura"], 300, "{made}");
    let path = format!("/api/v1/sensores/{}", made["sensor"]["id_sensor"]);
    let half = patch(&server, &path, &server.token, json!({ "intervalo_lectura": 300.5 })).await;
    assert_eq!(half.status(), 422);
    assert_eq!(half.json::<Value>().await.expect("JSON")["errors"][0]["campo"], "intervalo_lectura");
}

#[tokio::test]
async fn availability_is_what_came_of_what_was_expected() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let path = format!("/api/v1/sensores/{}", device.id_sensor);
    let before = "desde=2026-01-01T00:00:00Z&hasta=2026-01-02T00:00:00Z";
    let figures = server.get(&format!("{path}/estadisticas?{before}")).await;
    assert_eq!(figures["disponibilidad"], Value::Null, "nothing was due before it was there: {figures}");
    assert_eq!(patch(&server, &path, &server.token, json!({ "intervalo_lectura": 600 })).await.status(), 200);
    // Three of the six of an hour.
    let minute = 60_000_000;
    let of = |m: i64| json!({ "timestamp": moment(midnight(1) + m * minute), "temperatura": 20 });
    send(&server, &device, &[of(0), of(20), of(40)]).await;
    let range = format!("desde={}&hasta={}", moment(midnight(1)), moment(midnight(1) + 60 * minute - 1));
    let figures = server.get(&format!("{path}/estadisticas?{range}")).await;
    assert_eq!((&figures["lecturas"], &figures["disponibilidad"]), (&json!(3), &json!(50.0)), "{figures}");
}

#[tokio::test]
async fn a_sign_in_ends_alone_with_its_refresh_token() {
    let server = Server::start().await;
    let person = person(&server, "luz", "worker").await;
    let other = sign_in(&server, &person.email).await;
    let end = json!({ "refresh_token": person.refresh_token });
    assert_eq!(post(&server, "/api/v1/auth/logout", &person.token, end.clone()).await.status(), 204);
    let refresh = async |token: &Value| {
        post(&server, "/api/v1/auth/refresh", "", json!({ "refresh_token": token })).await.status()
    };
    assert_eq!(refresh(&end["refresh_token"]).await, 401);
    assert_eq!(refresh(&other["refresh_token"]).await, 200, "the other goes on");
    let path = format!("/api/v1/trabajadores/{}", person.id);
    assert_eq!(delete(&server, &path, &server.token).await, 204);
    assert_eq!(get(&server, &path, &server.token).await.status(), 200, "what they did stays");
}

#[tokio::test]
async fn nobody_registers_where_registration_is_closed() {
    let server = Server::start_with(|mut command| {
        command.env("ALERTRACE__IDENTITY__REGISTRATION", "closed");
        command
    })
    .await;
    for body in [
        json!({ "email": "a@x.pe", "password": PASSWORD, "user_type": "empresa", "nombre_empresa": "A",
            "ruc": "20111111111" }),
        json!({ "email": "b@x.pe", "password": PASSWORD, "user_type": "trabajador", "nombres": "B", "apellidos": "C" }),
    ] {
        let answer = post(&server, "/api/v1/auth/register", "", body).await;
        assert_eq!(refusal(answer).await, (403, "registration_closed".into()));
    }
    assert_eq!(list(&server, "/api/v1/trabajadores", &server.token).await.len(), 1);
}

#[tokio::test]
async fn a_socket_hears_who_leaves_and_nothing_that_was_not_committed() {
    let server = Server::start().await;
    let device = server.device("s1").await;
    let mut socket = super::live_as(&server, &server.token).await;
    crate::alerts::next(&mut socket, "snapshot").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    let here = crate::alerts::next(&mut socket, "estado").await;
    assert_eq!((&here["device_id"], &here["estado"]), (&json!("s1"), &json!("online")));
    // Something that the program does not know of refuses this value, in the commit.
    server.sql(match of_this_run() {
        Database::Sqlite => {
            "CREATE TRIGGER no BEFORE INSERT ON lecturas WHEN NEW.valores LIKE '%66.6%' \
             BEGIN SELECT RAISE(ABORT, 'no'); END"
        }
        _ => "ALTER TABLE lecturas ADD CONSTRAINT no CHECK (valores NOT LIKE '%66.6%')",
    });
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":66.6}"#).await, 0x99);
    assert_eq!(client.publish("sensores/s1/data", 2, r#"{"temperatura":20.5}"#).await, 0);
    let first = crate::alerts::next_of_any(&mut socket).await;
    assert_eq!((&first["type"], &first["data"]["temperatura"]), (&json!("sensor_update"), &json!(20.5)));
    drop(client);
    let gone = crate::alerts::next(&mut socket, "estado").await;
    assert_eq!((&gone["device_id"], &gone["estado"]), (&json!("s1"), &json!("offline")));
}
