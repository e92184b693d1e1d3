//! The schema: ours alone, and synced whatever a role was set to.

use reqwest::Method;
use serde_json::{Value, json};

use super::{on, schema, start};
use crate::support::postgres::{Cluster, Database, shared};
use crate::support::server::create_account;
use crate::support::{Client, Server};

#[tokio::test]
async fn a_platform_that_grants_everything_to_everybody_grants_nothing_of_ours() {
    let cluster = Cluster::own();
    // As Supabase sets up a project, and worse.
    cluster.sql(
        "CREATE ROLE anon; CREATE ROLE authenticated; GRANT ALL ON SCHEMA public TO anon, authenticated; \
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated, PUBLIC; \
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO anon, authenticated, PUBLIC; \
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO anon, authenticated",
    );
    let server = start(on(&cluster)).await;
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
    for role in ["anon", "authenticated"] {
        let usage = format!("SELECT has_schema_privilege('{role}', 'alertrace', 'USAGE, CREATE')");
        assert_eq!(cluster.sql(&usage), "f", "{role}");
    }
    let granted = cluster.sql(
        "SELECT c.relname FROM pg_class c, LATERAL aclexplode(c.relacl) a \
         WHERE c.relnamespace = 'alertrace'::regnamespace AND a.grantee <> c.relowner \
         AND c.relname NOT LIKE 'lecturas\\_2%'",
    );
    assert_eq!(granted, "", "granted to others");
    assert_eq!(cluster.sql("SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
}

#[tokio::test]
async fn a_role_that_does_not_wait_for_the_disk_waits_all_the_same() {
    let cluster = Cluster::own();
    cluster.sql("ALTER ROLE alertrace SET synchronous_commit TO off");
    let server = start(on(&cluster)).await;
    cluster.sql(
        "CREATE TABLE public.visto AS SELECT ''::TEXT AS valor WHERE FALSE; \
         CREATE FUNCTION public.mira() RETURNS trigger LANGUAGE plpgsql AS \
         $$BEGIN INSERT INTO public.visto VALUES (current_setting('synchronous_commit')); RETURN NULL; END$$; \
         CREATE TRIGGER mira AFTER INSERT ON alertrace.ultimas_lecturas EXECUTE FUNCTION public.mira()",
    );
    let device = server.device("s1").await;
    let mut client = Client::device(&server.mqtt, 5, &device).await;
    assert_eq!(client.publish("sensores/s1/data", 1, r#"{"temperatura":20}"#).await, 0);
    assert_eq!(cluster.sql("SELECT valor FROM public.visto"), "on");
}

#[test]
fn two_that_start_at_once_make_one_schema() {
    let schema = format!("d{}", std::process::id());
    let create = |n: u8| {
        let place = vec![("DATABASE_URL", shared().url()), ("ALERTRACE__DATABASE__SCHEMA", schema.clone())];
        std::thread::spawn(move || {
            let home = tempfile::tempdir().expect("a temporary directory");
            create_account(home.path(), &place, &format!("a{n}@fundo.pe"), &format!("2012345678{n}"))
        })
    };
    let all: Vec<_> = (0..2).map(create).collect();
    for one in all {
        assert!(one.join().expect("it ends"), "each has its turn");
    }
    assert_eq!(shared().sql(&format!("SELECT COUNT(*) FROM {schema}.empresas")), "2");
}

#[tokio::test]
async fn a_name_that_postgresql_cannot_hold_is_the_clients_mistake() {
    let server = Server::start_on(Database::Postgres).await;
    let body = json!({ "device_id": "s1", "nombre": "a\0b", "tipo": "t" });
    let answer = server.request(Method::POST, "/api/v1/sensores", &server.token, Some(body)).await;
    assert_eq!(answer.status(), 422);
    assert_eq!(answer.json::<Value>().await.expect("a problem")["code"], "validation_failed");
    assert_eq!(server.get("/api/v1/sensores").await, json!([]));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let mut server = Server::start_on(Database::Postgres).await;
    let schema = schema(&server);
    assert_eq!(server.terminate().await.0, Some(0));
    shared().sql(&format!("INSERT INTO {schema}.migraciones VALUES (9999, 'future', '')"));
    let output = server.command().arg("serve").output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("schema 9999") && error.contains("install a newer alertrace"), "{error}");
    assert!(!error.contains("secreta"), "no password in {error}");
}
