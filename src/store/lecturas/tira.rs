//! Many readings as one text, in order: `<ts>{…}␞<ts>{…}␞…`. The driver hands over one row where it would
//! hand over thousands, which is what makes a month of readings a matter of milliseconds.
//!
//! What is no reading (a row that another program wrote, or that the disk has changed) is passed over, and of
//! one that can be read in part that part is taken: one row must not keep anybody's hours from being summed.

use super::{Orden, Result};
use crate::domain::{Agregado, Resumen, Timestamp};
use crate::store::row::Texto;
use crate::store::{Tx, on, row};

/// What stands between two of them: JSON has no such character, be it in a text.
const SEPARA: char = '\u{1e}';

/// Readings of one sensor.
#[derive(Debug, Default)]
pub struct Tira {
    texto: String,
    /// How many there are.
    pub n: i64,
    /// The moments of the earliest and the latest of them.
    pub extremos: Option<(Timestamp, Timestamp)>,
}

/// What the readings of one bucket come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Cubeta {
    /// Its first moment.
    pub inicio: Timestamp,
    /// How many readings, of whatever variables.
    pub n: i64,
    /// Bytes of their values, as stored.
    pub bytes: i64,
    /// Each variable that one of them has.
    pub variables: Vec<(String, Resumen)>,
}

pub(in crate::store) const ASCENDENTE: &str = "SELECT string_agg(t.ts || t.valores, '\u{1e}') AS texto, COUNT(*) AS n, MIN(t.ts) AS desde, MAX(t.ts) AS hasta \
     FROM (SELECT ts, valores FROM lecturas WHERE id_sensor = $1 AND ts >= $2 AND ts < $3 \
     ORDER BY ts ASC LIMIT $4) t";
pub(in crate::store) const DESCENDENTE: &str = "SELECT string_agg(t.ts || t.valores, '\u{1e}') AS texto, COUNT(*) AS n, MIN(t.ts) AS desde, MAX(t.ts) AS hasta \
     FROM (SELECT ts, valores FROM lecturas WHERE id_sensor = $1 AND ts >= $2 AND ts < $3 \
     ORDER BY ts DESC LIMIT $4) t";

/// The first `cuantas` readings of a sensor, in the order asked for, with `desde <= ts < antes_de`.
///
/// # Errors
/// `Unavailable`.
pub async fn tira(
    tx: &mut Tx,
    id_sensor: i64,
    desde: Timestamp,
    antes_de: Timestamp,
    orden: Orden,
    cuantas: i64,
) -> Result<Tira> {
    row!(
        struct Fila {
            texto: Option<Texto>,
            n: i64,
            desde: Option<i64>,
            hasta: Option<i64>,
        }
    );
    let sql = match orden {
        Orden::Ascendente => ASCENDENTE,
        Orden::Descendente => DESCENDENTE,
    };
    let fila: Fila = on!(tx, |db| {
        sqlx::query_as(sql)
            .bind(id_sensor)
            .bind(desde.micros())
            .bind(antes_de.micros())
            .bind(cuantas)
            .fetch_one(db)
            .await
    })?;
    let extremos = fila.desde.zip(fila.hasta).map(|(a, b)| (Timestamp::clamped(a), Timestamp::clamped(b)));
    Ok(Tira { texto: fila.texto.unwrap_or_default().0, n: fila.n, extremos })
}

impl Tira {
    /// The readings, each with its values as they are stored.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, &str)> {
        self.texto.split(SEPARA).filter_map(|fila| {
            let abre = fila.find('{')?;
            let ts = Timestamp::clamped(fila[..abre].parse().ok()?);
            let suyo = self.extremos.is_none_or(|(primera, ultima)| primera <= ts && ts <= ultima);
            suyo.then(|| (ts, &fila[abre..]))
        })
    }

    /// The values of one variable.
    pub fn valores_de(&self, variable: &str) -> impl Iterator<Item = (Timestamp, f64)> {
        let clave = format!("\"{variable}\":");
        self.iter().filter_map(move |(ts, valores)| {
            let desde = valores.find(&clave)? + clave.len();
            let hasta = valores[desde..].find([',', '}']).map_or(valores.len(), |i| desde + i);
            Some((ts, numero(&valores[desde..hasta])?))
        })
    }

    /// Adds the readings to `cubetas`, whose last may be under way. They come oldest first; `inicio` says
    /// which bucket a moment belongs to. With `variable`, only the readings that have it, and nothing else
    /// of them. Answers how many could be read, and all of each.
    pub fn suma(
        &self,
        cubetas: &mut Vec<Cubeta>,
        variable: Option<&str>,
        inicio: impl Fn(Timestamp) -> Timestamp,
    ) -> i64 {
        let mut leidas = 0;
        if let Some(variable) = variable {
            for (ts, valor) in self.valores_de(variable) {
                let cubeta = cubeta(cubetas, inicio(ts));
                cubeta.n += 1;
                cubeta.anota(0, variable, ts, valor);
                leidas += 1;
            }
            return leidas;
        }
        for (ts, valores) in self.iter() {
            let cubeta = cubeta(cubetas, inicio(ts));
            cubeta.n += 1;
            cubeta.bytes += i64::try_from(valores.len()).unwrap_or_default();
            let mut entera = true;
            for (i, (nombre, valor)) in textos(valores).enumerate() {
                match numero(valor) {
                    Some(valor) => cubeta.anota(i, nombre, ts, valor),
                    None => entera = false,
                }
            }
            leidas += i64::from(entera);
        }
        leidas
    }
}

fn cubeta(cubetas: &mut Vec<Cubeta>, inicio: Timestamp) -> &mut Cubeta {
    let sigue = cubetas.last().is_some_and(|c| c.inicio == inicio);
    if !sigue {
        cubetas.push(Cubeta { inicio, n: 0, bytes: 0, variables: Vec::new() });
    }
    let ultima = cubetas.len() - 1;
    &mut cubetas[ultima]
}

impl Cubeta {
    /// Adds one value. `donde` is where the variable most likely stands: readings of a sensor have the
    /// same names in the same order.
    fn anota(&mut self, donde: usize, nombre: &str, ts: Timestamp, valor: f64) {
        let uno = Resumen::uno(ts, valor);
        let i = match self.variables.get(donde) {
            Some((n, _)) if n == nombre => Some(donde),
            _ => self.variables.iter().position(|(n, _)| n == nombre),
        };
        match i {
            Some(i) => self.variables[i].1.junta(&uno),
            None => self.variables.push((nombre.to_owned(), uno)),
        }
    }

    /// Takes in what another bucket of the same moment stands for.
    pub fn junta(&mut self, otra: &Self) {
        self.n += otra.n;
        self.bytes += otra.bytes;
        for (nombre, suyo) in &otra.variables {
            match self.variables.iter_mut().find(|(n, _)| n == nombre) {
                Some((_, mio)) => mio.junta(suyo),
                None => self.variables.push((nombre.clone(), *suyo)),
            }
        }
    }

    /// The figures of each variable, without the moments.
    pub fn totales(&self) -> impl Iterator<Item = (&str, Agregado)> {
        self.variables.iter().map(|(n, r)| (n.as_str(), r.total))
    }
}

/// The names and values of a stored object, which is flat and holds nothing but numbers.
pub fn pares(valores: &str) -> impl Iterator<Item = (&str, f64)> {
    textos(valores).filter_map(|(nombre, valor)| Some((nombre, numero(valor)?)))
}

/// As [`pares`], the values as they are written.
pub fn pares_texto(valores: &str) -> impl Iterator<Item = (&str, &str)> {
    textos(valores).filter(|(_, valor)| numero(valor).is_some())
}

fn textos(valores: &str) -> impl Iterator<Item = (&str, &str)> {
    let dentro = valores.get(1..valores.len().saturating_sub(1)).unwrap_or_default();
    dentro.split(',').filter(|par| !par.is_empty()).map(|par| {
        let (nombre, valor) = par.split_once(':').unwrap_or((par, ""));
        // This program writes no spaces, but others do.
        (nombre.trim().trim_matches('"'), valor.trim())
    })
}

fn numero(texto: &str) -> Option<f64> {
    texto.trim().parse().ok().filter(|valor: &f64| valor.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Valores, Variable};

    fn de(texto: &str) -> Tira {
        Tira { texto: texto.to_owned(), ..Tira::default() }
    }

    #[test]
    fn what_the_store_writes_is_read_back() {
        let mut valores = Valores::new();
        for (nombre, valor) in [("temperatura", -0.1), ("ph_suelo", 1e21), ("humedad_suelo", 5e-324)] {
            valores.set(Variable::new(nombre).unwrap(), valor);
        }
        let json = valores.to_json();
        let leidos: Vec<_> = pares(&json).collect();
        assert_eq!(leidos, valores.iter().map(|(v, x)| (v.as_str(), x)).collect::<Vec<_>>());
        let tira = de(&format!("7{json}\u{1e}8{{}}\u{1e}9{json}"));
        assert_eq!(tira.iter().count(), 3);
        let ph: Vec<_> = tira.valores_de("ph_suelo").map(|v| v.0.micros()).collect();
        assert_eq!(ph, [7, 9]);
    }

    #[test]
    fn a_name_within_a_name_is_not_taken_for_it() {
        let tira = de(r#"1{"subph":1.0,"ph":2.0,"ph_2":3.0}"#);
        assert_eq!(tira.valores_de("ph").map(|v| v.1).collect::<Vec<_>>(), [2.0]);
    }

    #[test]
    fn readings_fall_into_their_buckets() {
        let tira = de("1{\"a\":1.0}\u{1e}4{\"a\":3.0,\"b\":9.0}\u{1e}12{\"b\":2.5}");
        let mut cubetas = Vec::new();
        tira.suma(&mut cubetas, None, |ts| Timestamp::clamped(ts.micros() / 10 * 10));
        assert_eq!(cubetas.iter().map(|c| (c.inicio.micros(), c.n)).collect::<Vec<_>>(), [(0, 2), (10, 1)]);
        let a = cubetas[0].totales().find(|(n, _)| *n == "a").unwrap().1;
        assert_eq!(a, Agregado { n: 2, min: 1.0, max: 3.0, suma: 4.0 });
        let mut solo = Vec::new();
        tira.suma(&mut solo, Some("b"), |_| Timestamp::MIN);
        assert_eq!(
            solo[0].variables,
            [("b".to_owned(), {
                let mut r = Resumen::uno(Timestamp::clamped(4), 9.0);
                r.junta(&Resumen::uno(Timestamp::clamped(12), 2.5));
                r
            })]
        );
    }

    #[test]
    fn what_is_no_reading_is_passed_over_and_nothing_with_it() {
        let malas = ["x", "", "2", "3}{", "4roto", "{\"a\":7.0}", "99999999999999999999{\"a\":7.0}"];
        let mut texto = String::from("1{\"a\":1.0}");
        for mala in malas {
            texto = format!("{texto}\u{1e}{mala}");
        }
        // Another program's spaces; a value that is none beside one that is; a number that is none.
        texto.push_str("\u{1e}5{ \"a\": 2.5 }\u{1e}6{\"a\":0.5,\"b\":\"no\",\"c\":1x}\u{1e}8{\"a\":NaN}\u{1e}9{\"a\":4.0}");
        let tira = de(&texto);
        let mut cubetas = Vec::new();
        assert_eq!(tira.suma(&mut cubetas, None, |_| Timestamp::MIN), 3, "1, 5 and 9");
        let a = cubetas[0].totales().find(|(n, _)| *n == "a").unwrap().1;
        assert_eq!(a, Agregado { n: 4, min: 0.5, max: 4.0, suma: 8.0 });
        assert_eq!(cubetas[0].variables.len(), 1, "{cubetas:?}");
        assert_eq!(tira.valores_de("a").map(|v| v.1).collect::<Vec<_>>(), [1.0, 2.5, 0.5, 4.0]);
        // A moment that the question was not about is a value's first digits.
        let ajena = Tira { extremos: Some((Timestamp::clamped(5), Timestamp::clamped(6))), ..de(&texto) };
        assert_eq!(ajena.iter().count(), 2);
    }
}
