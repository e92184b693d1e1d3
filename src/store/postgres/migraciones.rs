//! The schema and its versions. All that is missing is applied in one transaction, by whoever has the
//! lease; sqlx's own migrator locks a session and names its statements, which a pooler gets in the way of.

use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::super::migrations::{self, Applied, Lista};
use super::super::{Error, Result};
use super::{arriendo, conexion};

/// See [`Lista`].
pub(in crate::store) const LISTA: Lista = &[
    (1, "inicial", include_str!("../../../migrations/postgres/0001_inicial.sql")),
    (2, "sesiones mqtt", include_str!("../../../migrations/postgres/0002_sesiones_mqtt.sql")),
    (3, "comandos", include_str!("../../../migrations/postgres/0003_comandos.sql")),
    (4, "historia", include_str!("../../../migrations/postgres/0004_historia.sql")),
    (5, "recursos", include_str!("../../../migrations/postgres/0005_recursos.sql")),
    (6, "auditoria", include_str!("../../../migrations/postgres/0006_auditoria.sql")),
    (7, "generacion", include_str!("../../../migrations/postgres/0007_generacion.sql")),
    (8, "identidad", include_str!("../../../migrations/postgres/0008_identidad.sql")),
    (9, "totp", include_str!("../../../migrations/postgres/0009_totp.sql")),
    (10, "reactivacion", include_str!("../../../migrations/postgres/0010_reactivacion.sql")),
    (11, "testamentos", include_str!("../../../migrations/postgres/0011_testamentos.sql")),
];

const TABLA: &str = "CREATE TABLE IF NOT EXISTS migraciones (
    version BIGINT PRIMARY KEY, descripcion TEXT NOT NULL, sha256 BYTEA NOT NULL)";

/// Makes the schema, and in it what the lease and the migrations need.
pub(super) async fn prepare(options: &PgConnectOptions, schema: &str) -> Result<()> {
    let mut db = conexion::connect(options).await?;
    let mut tx = db.begin().await?;
    // Two that start at once: IF NOT EXISTS is no lock. This one is the transaction's, so that a pooler keeps it.
    let lock = "SET LOCAL client_min_messages TO warning; SELECT pg_advisory_xact_lock(7021337455)";
    run_sql(&mut tx, lock.to_owned()).await?;
    let there = sqlx::query("SELECT 1 FROM pg_namespace WHERE nspname = $1")
        .persistent(false)
        .bind(schema)
        .fetch_optional(&mut *tx)
        .await?;
    if there.is_none() {
        run_sql(&mut tx, format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    run_sql(&mut tx, format!("SET LOCAL search_path TO \"{schema}\"; {TABLA}; {}", arriendo::TABLA)).await?;
    tx.commit().await?;
    db.close().await?;
    Ok(())
}

/// Brings the schema up to the newest version that this binary knows.
pub(super) async fn run(options: &PgConnectOptions, schema: &str, token: i64) -> Result<()> {
    let mut db = conexion::connect(options).await?;
    let mut tx = db.begin().await?;
    run_sql(&mut tx, format!("SET LOCAL search_path TO \"{schema}\"; SET LOCAL statement_timeout TO 0"))
        .await?;
    let fila =
        sqlx::raw_sql("SELECT token FROM arriendo WHERE id = 1 FOR UPDATE").fetch_one(&mut *tx).await?;
    if fila.try_get::<i64, _>(0)? != token {
        return Err(Error::Lost(String::from("while it started")));
    }
    let hechas = applied(&mut tx).await?;
    let versiones: Vec<Applied> = hechas.iter().map(|(a, _)| a.clone()).collect();
    migrations::check(LISTA, &versiones)?;
    for (version, descripcion, sql) in LISTA {
        let sha256 = Sha256::digest(sql.as_bytes()).to_vec();
        match hechas.iter().find(|(a, _)| a.version == *version) {
            Some((_, hecha)) if *hecha == sha256 => continue,
            Some(_) => {
                return Err(Error::inconsistent(format!("migration {version} is not as it was applied")));
            }
            None => {}
        }
        run_sql(&mut tx, (*sql).to_owned()).await?;
        sqlx::query("INSERT INTO migraciones (version, descripcion, sha256) VALUES ($1, $2, $3)")
            .persistent(false)
            .bind(version)
            .bind(migrations::described(*version, descripcion))
            .bind(sha256)
            .execute(&mut *tx)
            .await?;
        tracing::info!(version, descripcion, "the schema has a new version");
    }
    shut(&mut tx, schema).await?;
    tx.commit().await?;
    db.close().await?;
    Ok(())
}

/// The version of a schema that [`run`] will change; `None` = it has them all, or nothing in it yet.
pub(super) async fn about_to_change(options: &PgConnectOptions, schema: &str) -> Result<Option<i64>> {
    let hechas = look(options, schema).await?;
    migrations::check(LISTA, &hechas)?;
    let ultima = hechas.iter().map(|a| a.version).max();
    Ok(ultima.filter(|_| hechas.len() < LISTA.len()))
}

/// What the schema has, without making it: for whoever only looks.
pub(in crate::store) async fn look(options: &PgConnectOptions, schema: &str) -> Result<Vec<Applied>> {
    let mut db = conexion::connect(options).await?;
    let mut tx = db.begin_with("BEGIN READ ONLY").await?;
    run_sql(&mut tx, format!("SET LOCAL search_path TO \"{schema}\"")).await?;
    let there = sqlx::raw_sql("SELECT to_regclass('migraciones') IS NOT NULL").fetch_one(&mut *tx).await?;
    let hechas = if there.try_get(0)? { applied(&mut tx).await? } else { Vec::new() };
    tx.commit().await?;
    db.close().await?;
    Ok(hechas.into_iter().map(|(a, _)| a).collect())
}

async fn applied(db: &mut PgConnection) -> Result<Vec<(Applied, Vec<u8>)>> {
    let filas = sqlx::query("SELECT version, descripcion, sha256 FROM migraciones ORDER BY version")
        .persistent(false)
        .fetch_all(db)
        .await?;
    let fila = |f: &sqlx::postgres::PgRow| {
        Ok((Applied { version: f.try_get(0)?, description: f.try_get(1)? }, f.try_get(2)?))
    };
    filas.iter().map(fila).collect()
}

/// Nothing for anybody but the owner, whatever default privileges a platform has set: Supabase's API
/// answers to `anon`, which is everybody.
async fn shut(db: &mut PgConnection, schema: &str) -> Result<()> {
    let roles =
        sqlx::query("SELECT CAST(rolname AS TEXT) FROM pg_roles WHERE rolname IN ('anon', 'authenticated')")
            .persistent(false)
            .fetch_all(&mut *db)
            .await?;
    let mut nadie = String::from("PUBLIC");
    for rol in &roles {
        nadie.push_str(", ");
        nadie.push_str(rol.try_get(0)?);
    }
    let sql = format!(
        "REVOKE ALL ON SCHEMA \"{schema}\" FROM {nadie}; REVOKE ALL ON ALL TABLES IN SCHEMA \"{schema}\" FROM {nadie}; \
         REVOKE ALL ON ALL SEQUENCES IN SCHEMA \"{schema}\" FROM {nadie}"
    );
    run_sql(db, sql).await
}

async fn run_sql(db: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
    Ok(())
}
