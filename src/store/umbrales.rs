//! The bounds that an empresa set for itself.

use super::{Error, Result, Tx, on, row};
use crate::domain::{Rango, Variable};

row!(
    struct Fila {
        id_empresa: i64,
        variable: String,
        minimo: f64,
        maximo: f64,
    }
);

impl Fila {
    fn umbral(self) -> Result<(i64, Variable, Rango)> {
        let variable =
            Variable::new(&self.variable).ok_or_else(|| Error::inconsistent("umbrales.variable"))?;
        Ok((self.id_empresa, variable, Rango { min: self.minimo, max: self.maximo }))
    }
}

/// Every bound of every empresa: (empresa, variable, bounds).
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn all(tx: &mut Tx) -> Result<Vec<(i64, Variable, Rango)>> {
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT id_empresa, variable, minimo, maximo FROM umbrales").fetch_all(db).await
    })?;
    filas.into_iter().map(Fila::umbral).collect()
}

/// The bounds that one empresa set.
///
/// # Errors
/// `Unavailable`, `Inconsistent`.
pub async fn of_empresa(tx: &mut Tx, id_empresa: i64) -> Result<Vec<(Variable, Rango)>> {
    let filas: Vec<Fila> = on!(tx, |db| {
        sqlx::query_as("SELECT id_empresa, variable, minimo, maximo FROM umbrales WHERE id_empresa = $1")
            .bind(id_empresa)
            .fetch_all(db)
            .await
    })?;
    filas.into_iter().map(|f| f.umbral().map(|(_, v, r)| (v, r))).collect()
}

/// Sets one bound.
///
/// # Errors
/// `Refused` when `min` is not below `max`, `Unavailable`.
pub async fn set(tx: &mut Tx, id_empresa: i64, variable: &Variable, rango: Rango) -> Result<()> {
    on!(tx, |db| {
        sqlx::query(
            "INSERT INTO umbrales (id_empresa, variable, minimo, maximo) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id_empresa, variable) DO UPDATE SET minimo = excluded.minimo, maximo = excluded.maximo",
        )
        .bind(id_empresa)
        .bind(variable.as_str())
        .bind(rango.min)
        .bind(rango.max)
        .execute(db)
        .await
        .map(drop)
    })?;
    Ok(())
}
