//! The bulk statements of PostgreSQL: arrays, unnested, so that a statement's text is constant.

use super::super::postgres::PgTx;
use super::{Encolada, Result, Retenido, Suscripcion};
use crate::domain::Timestamp;

pub(super) async fn enqueue(tx: &mut PgTx, filas: &[&Encolada]) -> Result<()> {
    macro_rules! columna {
        (|$e:ident| $valor:expr) => {
            filas.iter().map(|$e| $valor).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "INSERT INTO mqtt_cola (id_sesion, seq, topic, payload, qos, retain, expira, propiedades, identificadores, \
         id_sensor, grupo) \
         SELECT n.* FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::TEXT[], $4::BYTEA[], $5::BIGINT[], $6::BOOLEAN[], \
         $7::BIGINT[], $8::BYTEA[], $9::TEXT[], $10::BIGINT[], $11::TEXT[]) \
         AS n (id_sesion, seq, topic, payload, qos, retain, expira, propiedades, identificadores, id_sensor, grupo) \
         JOIN mqtt_sesiones s ON s.id_sesion = n.id_sesion ON CONFLICT (id_sesion, seq) DO NOTHING",
    )
    .bind(columna!(|e| e.id_sesion))
    .bind(columna!(|e| e.seq))
    .bind(columna!(|e| e.contenido.topic.clone()))
    .bind(columna!(|e| e.contenido.payload.to_vec()))
    .bind(columna!(|e| e.qos))
    .bind(columna!(|e| e.retain))
    .bind(columna!(|e| e.contenido.expira.map(Timestamp::micros)))
    .bind(columna!(|e| e.contenido.propiedades.to_vec()))
    .bind(columna!(|e| serde_json::to_string(&e.identificadores).unwrap_or_default()))
    .bind(columna!(|e| e.contenido.id_sensor))
    .bind(columna!(|e| e.grupo.clone()))
    .execute(tx.db())
    .await?;
    Ok(())
}

pub(super) async fn receive(tx: &mut PgTx, filas: &[(i64, i64)]) -> Result<()> {
    pairs(
        tx,
        "UPDATE mqtt_cola c SET estado = 2 FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS k (id_sesion, seq) \
         WHERE c.id_sesion = k.id_sesion AND c.seq = k.seq",
        filas,
    )
    .await
}

pub(super) async fn complete(tx: &mut PgTx, filas: &[(i64, i64)]) -> Result<()> {
    pairs(
        tx,
        "DELETE FROM mqtt_cola c USING UNNEST($1::BIGINT[], $2::BIGINT[]) AS k (id_sesion, seq) \
         WHERE c.id_sesion = k.id_sesion AND c.seq = k.seq",
        filas,
    )
    .await
}

pub(super) async fn take(tx: &mut PgTx, filas: &[(i64, i64)]) -> Result<()> {
    pairs(
        tx,
        "INSERT INTO mqtt_recibidos (id_sesion, pid) \
         SELECT k.id_sesion, k.pid FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS k (id_sesion, pid) \
         JOIN mqtt_sesiones s ON s.id_sesion = k.id_sesion ON CONFLICT (id_sesion, pid) DO NOTHING",
        filas,
    )
    .await
}

pub(super) async fn release(tx: &mut PgTx, filas: &[(i64, i64)]) -> Result<()> {
    pairs(
        tx,
        "DELETE FROM mqtt_recibidos r USING UNNEST($1::BIGINT[], $2::BIGINT[]) AS k (id_sesion, pid) \
         WHERE r.id_sesion = k.id_sesion AND r.pid = k.pid",
        filas,
    )
    .await
}

pub(super) async fn retain(tx: &mut PgTx, filas: &[&Retenido]) -> Result<()> {
    macro_rules! columna {
        (|$r:ident| $valor:expr) => {
            filas.iter().map(|$r| $valor).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "INSERT INTO mqtt_retenidos (topic, payload, qos, expira, propiedades, id_sensor) \
         SELECT * FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BIGINT[], $4::BIGINT[], $5::BYTEA[], $6::BIGINT[]) \
         ON CONFLICT (topic) DO UPDATE SET payload = excluded.payload, qos = excluded.qos, \
         expira = excluded.expira, propiedades = excluded.propiedades, id_sensor = excluded.id_sensor",
    )
    .bind(columna!(|r| r.contenido.topic.clone()))
    .bind(columna!(|r| r.contenido.payload.to_vec()))
    .bind(columna!(|r| r.qos))
    .bind(columna!(|r| r.contenido.expira.map(Timestamp::micros)))
    .bind(columna!(|r| r.contenido.propiedades.to_vec()))
    .bind(columna!(|r| r.contenido.id_sensor))
    .execute(tx.db())
    .await?;
    Ok(())
}

pub(super) async fn forget(tx: &mut PgTx, topics: &[&str]) -> Result<()> {
    let topics: Vec<String> = topics.iter().map(|t| (*t).to_owned()).collect();
    sqlx::query("DELETE FROM mqtt_retenidos WHERE topic = ANY ($1::TEXT[])")
        .bind(topics)
        .execute(tx.db())
        .await?;
    Ok(())
}

pub(super) async fn expire(tx: &mut PgTx, filas: &[(&str, i64)]) -> Result<()> {
    let (topics, momentos): (Vec<String>, Vec<i64>) =
        filas.iter().map(|(topic, expira)| ((*topic).to_owned(), *expira)).unzip();
    sqlx::query(
        "DELETE FROM mqtt_retenidos r USING UNNEST($1::TEXT[], $2::BIGINT[]) AS k (topic, expira) \
         WHERE r.topic = k.topic AND r.expira <= k.expira",
    )
    .bind(topics)
    .bind(momentos)
    .execute(tx.db())
    .await?;
    Ok(())
}

pub(super) async fn subscribe(tx: &mut PgTx, filas: &[&Suscripcion]) -> Result<()> {
    macro_rules! columna {
        (|$s:ident| $valor:expr) => {
            filas.iter().map(|$s| $valor).collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "INSERT INTO mqtt_suscripciones (id_sesion, filtro, qos, no_local, rap, retain_handling, identificador) \
         SELECT n.* FROM UNNEST($1::BIGINT[], $2::TEXT[], $3::BIGINT[], $4::BOOLEAN[], $5::BOOLEAN[], $6::BIGINT[], \
         $7::BIGINT[]) AS n (id_sesion, filtro, qos, no_local, rap, retain_handling, identificador) \
         JOIN mqtt_sesiones s ON s.id_sesion = n.id_sesion \
         ON CONFLICT (id_sesion, filtro) DO UPDATE SET qos = excluded.qos, no_local = excluded.no_local, \
         rap = excluded.rap, retain_handling = excluded.retain_handling, identificador = excluded.identificador",
    )
    .bind(columna!(|s| s.id_sesion))
    .bind(columna!(|s| s.filtro.clone()))
    .bind(columna!(|s| s.qos))
    .bind(columna!(|s| s.no_local))
    .bind(columna!(|s| s.rap))
    .bind(columna!(|s| s.retain_handling))
    .bind(columna!(|s| s.identificador.map(i64::from)))
    .execute(tx.db())
    .await?;
    Ok(())
}

pub(super) async fn unsubscribe(tx: &mut PgTx, filas: &[(i64, &str)]) -> Result<()> {
    let (sesiones, filtros): (Vec<i64>, Vec<String>) =
        filas.iter().map(|(id_sesion, filtro)| (*id_sesion, (*filtro).to_owned())).unzip();
    sqlx::query(
        "DELETE FROM mqtt_suscripciones u USING UNNEST($1::BIGINT[], $2::TEXT[]) AS k (id_sesion, filtro) \
         WHERE u.id_sesion = k.id_sesion AND u.filtro = k.filtro",
    )
    .bind(sesiones)
    .bind(filtros)
    .execute(tx.db())
    .await?;
    Ok(())
}

async fn pairs(tx: &mut PgTx, sql: &'static str, filas: &[(i64, i64)]) -> Result<()> {
    let (uno, dos): (Vec<i64>, Vec<i64>) = filas.iter().copied().unzip();
    sqlx::query(sql).bind(uno).bind(dos).execute(tx.db()).await?;
    Ok(())
}
