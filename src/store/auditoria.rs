//! Who changed what: a line for each change, written in the change's own transaction by [`Autor::anota`].
//!
//! No secret comes in here: callers say what people may see, and [`sin_secretos`] takes out what is named
//! like one all the same (a device's configuration is whatever its owner put there).

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Hoja, Result, Tx, on, row};
use crate::domain::Timestamp;

/// Where a change was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origen {
    /// The client's address, `consola` or `servidor`.
    pub de: String,
    /// The request's `X-Request-Id`.
    pub peticion: Option<String>,
}

impl Origen {
    /// The command line of the server's own machine.
    #[must_use]
    pub fn consola() -> Self {
        Self { de: "consola".to_owned(), peticion: None }
    }
}

/// Who changes something, from where, and when they asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autor {
    /// The account.
    pub user_id: String,
    /// Whose administrators may read of it.
    pub id_empresa: Option<i64>,
    /// From where.
    pub origen: Origen,
    /// When.
    pub momento: Timestamp,
}

/// What was done to what.
#[derive(Debug, Clone, PartialEq)]
pub struct Hecho {
    accion: &'static str,
    objeto: &'static str,
    id: String,
    antes: Option<Value>,
    despues: Option<Value>,
}

impl Hecho {
    /// Something was made.
    pub fn creado(objeto: &'static str, id: impl ToString, despues: &impl Serialize) -> Self {
        Self { despues: Some(valor(despues)), ..Self::nuevo("crear", objeto, id) }
    }

    /// Something is otherwise now: only what differs is kept.
    pub fn cambiado(
        objeto: &'static str,
        id: impl ToString,
        antes: &impl Serialize,
        despues: &impl Serialize,
    ) -> Self {
        let (mut antes, mut despues) = (valor(antes), valor(despues));
        if let (Value::Object(a), Value::Object(d)) = (&mut antes, &mut despues) {
            let (eran, son) = (a.clone(), d.clone());
            a.retain(|campo, v| son.get(campo) != Some(v));
            d.retain(|campo, v| eran.get(campo) != Some(v));
        }
        Self { antes: Some(antes), despues: Some(despues), ..Self::nuevo("cambiar", objeto, id) }
    }

    /// Something is gone.
    pub fn borrado(objeto: &'static str, id: impl ToString, antes: &impl Serialize) -> Self {
        Self { antes: Some(valor(antes)), ..Self::nuevo("borrar", objeto, id) }
    }

    /// Something was done that has no before and after.
    #[expect(clippy::needless_pass_by_value, reason = "a key, or a reference to a name")]
    pub fn nuevo(accion: &'static str, objeto: &'static str, id: impl ToString) -> Self {
        Self { accion, objeto, id: id.to_string(), antes: None, despues: None }
    }

    /// Under another name than `crear`, `cambiar` or `borrar`.
    #[must_use]
    pub fn como(mut self, accion: &'static str) -> Self {
        self.accion = accion;
        self
    }

    /// Whether anything is otherwise than before.
    fn cambia_algo(&self) -> bool {
        self.antes.is_none() || self.antes != self.despues
    }
}

fn valor(de: &impl Serialize) -> Value {
    sin_secretos(serde_json::to_value(de).unwrap_or_default())
}

/// Puts stars in the place of every member that is named like a secret.
fn sin_secretos(valor: Value) -> Value {
    const SECRETOS: [&str; 8] =
        ["password", "passwd", "contrasena", "clave", "secret", "token", "credencial", "apikey"];
    let secreto = |campo: &str| {
        let campo: String = campo.chars().filter(char::is_ascii_alphanumeric).collect();
        SECRETOS.iter().any(|s| campo.to_ascii_lowercase().contains(s))
    };
    let miembro = |(campo, v): (String, Value)| {
        let v = if secreto(&campo) { Value::from("***") } else { sin_secretos(v) };
        (campo, v)
    };
    match valor {
        Value::Object(miembros) => Value::Object(miembros.into_iter().map(miembro).collect::<Map<_, _>>()),
        Value::Array(valores) => Value::Array(valores.into_iter().map(sin_secretos).collect()),
        otro => otro,
    }
}

impl Autor {
    /// The server itself, when nobody asked.
    #[must_use]
    pub fn servidor(id_empresa: i64, momento: Timestamp) -> Self {
        let origen = Origen { de: "servidor".to_owned(), peticion: None };
        Self { user_id: "alertrace".to_owned(), id_empresa: Some(id_empresa), origen, momento }
    }

    /// Writes down `hecho`, in the transaction of the change. A change that changed nothing is none.
    ///
    /// # Errors
    /// `Unavailable`; the change must not be committed then.
    pub async fn anota(&self, tx: &mut Tx, hecho: &Hecho) -> Result<()> {
        if !hecho.cambia_algo() {
            return Ok(());
        }
        let texto = |v: &Option<Value>| v.as_ref().map(Value::to_string);
        on!(tx, |db| {
            sqlx::query(
                "INSERT INTO auditoria (id_empresa, momento, user_id, accion, objeto, id_objeto, antes, despues, \
                 origen, peticion) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(self.id_empresa)
            .bind(self.momento.micros())
            .bind(self.user_id.as_str())
            .bind(hecho.accion)
            .bind(hecho.objeto)
            .bind(hecho.id.as_str())
            .bind(texto(&hecho.antes))
            .bind(texto(&hecho.despues))
            .bind(self.origen.de.as_str())
            .bind(self.origen.peticion.as_deref())
            .execute(db)
            .await
            .map(drop)
        })?;
        Ok(())
    }
}

row!(
    /// A line of the audit.
    #[derive(Debug, Clone)]
    pub struct Anotado {
        /// Key.
        pub id_auditoria: i64,
        /// When it was asked for, in microseconds.
        pub momento: i64,
        /// By whom.
        pub user_id: String,
        /// That person's e-mail, if they are still known.
        pub email: Option<String>,
        /// What was done.
        pub accion: String,
        /// To what kind of thing.
        pub objeto: String,
        /// To which.
        pub id_objeto: String,
        /// How it was: JSON.
        pub antes: Option<String>,
        /// How it is: JSON.
        pub despues: Option<String>,
        /// From which address.
        pub origen: String,
        /// In which request.
        pub peticion: Option<String>,
    }
);

/// Narrows a list.
#[derive(Debug, Clone, Default)]
pub struct Filtro<'a> {
    /// By account.
    pub user_id: Option<&'a str>,
    /// By what was done.
    pub accion: Option<&'a str>,
    /// By kind of thing.
    pub objeto: Option<&'a str>,
    /// By thing.
    pub id_objeto: Option<&'a str>,
    /// At or after.
    pub desde: Option<Timestamp>,
    /// At or before.
    pub hasta: Option<Timestamp>,
}

/// The condition of [`list`]; `$1` … `$7`.
macro_rules! donde {
    ($head:literal, $tail:literal) => {
        concat!(
            $head,
            " WHERE a.id_empresa = $1 AND ($2 IS NULL OR a.user_id = $2) AND ($3 IS NULL OR a.accion = $3) ",
            "AND ($4 IS NULL OR a.objeto = $4) AND ($5 IS NULL OR a.id_objeto = $5) ",
            "AND ($6 IS NULL OR a.momento >= $6) AND ($7 IS NULL OR a.momento <= $7) ",
            $tail
        )
    };
}

/// What was changed of an empresa, the newest first, and how many lines there are in all.
///
/// # Errors
/// `Unavailable`.
pub async fn list(
    tx: &mut Tx,
    id_empresa: i64,
    filtro: &Filtro<'_>,
    hoja: &Hoja,
) -> Result<(Vec<Anotado>, i64)> {
    let filas: Vec<Anotado> = on!(&mut *tx, |db| {
        sqlx::query_as(donde!(
            "SELECT a.id_auditoria, a.momento, a.user_id, t.email, a.accion, a.objeto, a.id_objeto, a.antes, \
             a.despues, a.origen, a.peticion FROM auditoria a LEFT JOIN trabajadores t ON t.user_id = a.user_id",
            "AND a.id_auditoria < $8 ORDER BY a.id_auditoria DESC LIMIT $9 OFFSET $10"
        ))
        .bind(id_empresa)
        .bind(filtro.user_id)
        .bind(filtro.accion)
        .bind(filtro.objeto)
        .bind(filtro.id_objeto)
        .bind(filtro.desde.map(Timestamp::micros))
        .bind(filtro.hasta.map(Timestamp::micros))
        .bind(hoja.bajo())
        .bind(hoja.pide())
        .bind(hoja.skip)
        .fetch_all(db)
        .await
    })?;
    let total: i64 = on!(tx, |db| {
        sqlx::query_scalar(donde!("SELECT COUNT(*) AS total FROM auditoria a", ""))
            .bind(id_empresa)
            .bind(filtro.user_id)
            .bind(filtro.accion)
            .bind(filtro.objeto)
            .bind(filtro.id_objeto)
            .bind(filtro.desde.map(Timestamp::micros))
            .bind(filtro.hasta.map(Timestamp::micros))
            .fetch_one(db)
            .await
    })?;
    Ok((filas, total))
}

/// Whether there are lines of before `antes`.
///
/// # Errors
/// `Unavailable`.
pub async fn any_before(tx: &mut Tx, antes: Timestamp) -> Result<bool> {
    row!(
        struct Uno {
            id_auditoria: i64,
        }
    );
    let fila: Option<Uno> = on!(tx, |db| {
        sqlx::query_as("SELECT id_auditoria FROM auditoria WHERE momento < $1 LIMIT 1")
            .bind(antes.micros())
            .fetch_optional(db)
            .await
    })?;
    Ok(fila.is_some_and(|f| f.id_auditoria > 0))
}

/// Removes at most `cuantas` lines of before `antes`.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(tx: &mut Tx, antes: Timestamp, cuantas: i64) -> Result<u64> {
    Ok(on!(tx, |db| {
        sqlx::query(
            "DELETE FROM auditoria WHERE id_auditoria IN (SELECT id_auditoria FROM auditoria \
             WHERE momento < $1 ORDER BY momento LIMIT $2)",
        )
        .bind(antes.micros())
        .bind(cuantas)
        .execute(db)
        .await
        .map(|r| r.rows_affected())
    })?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_kept_and_no_secret() {
        let antes = json!({ "a": 1, "b": 2, "wifi_password": "x", "c": { "token": "y", "d": 3 } });
        let despues = json!({ "a": 1, "b": 3, "wifi_password": "z", "c": { "token": "w", "d": 4 } });
        let hecho = Hecho::cambiado("config", 1, &antes, &despues);
        assert_eq!(hecho.antes, Some(json!({ "b": 2, "c": { "token": "***", "d": 3 } })));
        assert_eq!(hecho.despues, Some(json!({ "b": 3, "c": { "token": "***", "d": 4 } })));
        assert!(!Hecho::cambiado("config", 1, &antes, &antes).cambia_algo());
        let clave = Hecho::creado("x", 1, &json!([{ "API-Key": "k", "codigo": 7 }]));
        assert_eq!(clave.despues, Some(json!([{ "API-Key": "***", "codigo": 7 }])));
    }
}
