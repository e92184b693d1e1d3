//! Whatever happens in whatever order, an answer is what the readings say that were ever stored.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Fuente, Intervalo, Rango, buckets, curve, statistics};
use crate::domain::{Agregado, DeviceId, Timestamp, Valores, Variable};
use crate::store::lecturas::Fila;
use crate::store::{self, Store, empresas, horas, lecturas, sensores};

/// 2026-01-01, a Thursday.
const CERO: i64 = 1_767_225_600_000_000;
const MINUTO: i64 = 60_000_000;

pub(super) async fn with_sensor() -> (TempDir, Store, i64) {
    let dir = tempfile::tempdir().unwrap();
    let options = store::Options { readers: 2, busy_timeout: Duration::from_secs(5) };
    let store = Store::open_sqlite(&dir.path().join("a.db"), options).await.unwrap();
    let mut tx = store.write().await.unwrap();
    let empresa = empresas::Nueva { ruc: "20123456789", razon_social: "F", email: None, telefono: None };
    let id_empresa = empresas::create(&mut tx, empresa, Timestamp::MIN).await.unwrap();
    let nuevo = sensores::Nuevo {
        id_empresa,
        device_id: &DeviceId::new("s1").unwrap(),
        nombre: "s1",
        tipo: "t",
        id_cultivo: None,
        intervalo_lectura: 60,
        ubicacion_sensor: None,
        coordenadas_lat: None,
        coordenadas_lng: None,
        credencial: &[0; 32],
    };
    let id = sensores::create(&mut tx, &nuevo, Timestamp::MIN).await.unwrap();
    tx.commit().await.unwrap();
    (dir, store, id)
}

/// Writes as the writer of readings does.
async fn write(store: &Store, filas: &[Fila]) {
    let mut tx = store.write_first().await.unwrap();
    lecturas::write(&mut tx, filas).await.unwrap();
    let mut marcas = store.marcas().lock().await;
    let faltan = marcas.faltan(filas.iter().map(|f| (f.id_sensor, f.ts.hora())));
    horas::mark(&mut tx, &faltan).await.unwrap();
    tx.commit().await.unwrap();
    marcas.recuerda(faltan);
}

async fn take(store: &Store, cuantas: usize) -> Vec<horas::Pendiente> {
    let mut tx = store.write().await.unwrap();
    let mut conocidas = store.marcas().lock().await;
    let turno = horas::due(&mut tx, 0, Timestamp::MAX, cuantas).await.unwrap();
    let marcas = horas::take(&mut tx, &turno.horas).await.unwrap();
    conocidas.olvida(&marcas);
    tx.commit().await.unwrap();
    marcas
}

async fn sum(store: &Store, marcas: &[horas::Pendiente]) -> Vec<horas::Resumida> {
    let mut tx = store.read().await.unwrap();
    let mut sumadas = Vec::new();
    for marca in marcas {
        sumadas.extend(horas::sum(&mut tx, *marca).await.unwrap());
    }
    sumadas
}

async fn put(store: &Store, sumadas: &[horas::Resumida], marcas: &[horas::Pendiente]) {
    let mut tx = store.write().await.unwrap();
    horas::put(&mut tx, sumadas, marcas, None).await.unwrap();
    tx.commit().await.unwrap();
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Paso {
    /// Readings at these minutes, each with a value of `a` or `b`.
    Llegan(Vec<(i64, bool, i32)>),
    Toma(usize),
    Suma,
    Escribe,
    /// So many of the readings before this minute.
    Purga(i64, i64),
}

fn paso() -> impl Strategy<Value = Paso> {
    let lectura = (0_i64..600, any::<bool>(), -50_i32..50);
    prop_oneof![
        4 => proptest::collection::vec(lectura, 1..12).prop_map(Paso::Llegan),
        2 => (1_usize..8).prop_map(Paso::Toma),
        2 => Just(Paso::Suma),
        2 => Just(Paso::Escribe),
        1 => (0_i64..600, 1_i64..10).prop_map(|(antes, n)| Paso::Purga(antes, n)),
    ]
}

/// What was ever stored.
#[derive(Default)]
struct Memoria {
    lecturas: BTreeMap<i64, Valores>,
    /// Those of them that were purged: a device does not send them again.
    idas: BTreeMap<i64, Valores>,
}

impl Memoria {
    /// The rows to write: a value that is there already stands, another variable is merged.
    fn recibe(&mut self, id_sensor: i64, llegan: &[(i64, bool, i32)]) -> Vec<Fila> {
        let mut filas = BTreeMap::new();
        for (minuto, a, valor) in llegan {
            let ts = CERO + minuto * MINUTO;
            if self.idas.contains_key(&ts) {
                continue;
            }
            let valores = self.lecturas.entry(ts).or_default();
            let variable = Variable::new(if *a { "a" } else { "b" }).unwrap();
            if valores.get(&variable).is_none() {
                valores.set(variable, f64::from(*valor) / 4.0);
            }
            filas.insert(ts, Fila { id_sensor, ts: Timestamp::clamped(ts), valores: valores.clone() });
        }
        filas.into_values().collect()
    }

    fn purga(&mut self, antes_de: i64, cuantas: usize) {
        let van: Vec<i64> = self.lecturas.range(..antes_de).take(cuantas).map(|(ts, _)| *ts).collect();
        for ts in van {
            let valores = self.lecturas.remove(&ts).unwrap();
            self.idas.insert(ts, valores);
        }
    }

    /// What `rango` comes to, and how many readings are in it.
    fn total(&self, rango: Rango) -> (BTreeMap<String, Agregado>, i64) {
        let (mut total, mut n) = (BTreeMap::<String, Agregado>::new(), 0);
        let dentro = rango.desde.micros()..rango.antes_de.micros();
        for (_, valores) in self.lecturas.range(dentro.clone()).chain(self.idas.range(dentro)) {
            n += 1;
            for (variable, valor) in valores.iter() {
                let uno = Agregado { n: 1, min: valor, max: valor, suma: valor };
                total.entry(variable.as_str().to_owned()).and_modify(|t| t.junta(&uno)).or_insert(uno);
            }
        }
        (total, n)
    }
}

async fn check(store: &Store, id: i64, memoria: &Memoria, minutos: (i64, i64)) {
    let ts = |minuto: i64| Timestamp::clamped(CERO + minuto * MINUTO);
    let pedido = Rango { desde: ts(minutos.0), antes_de: ts(minutos.1) };
    let mut tx = store.read().await.unwrap();
    // Quarters of small integers: their sums are exact, so nothing is "about equal" here.
    let e = statistics(&mut tx, id, pedido).await.unwrap().unwrap();
    assert!(e.rango.desde <= pedido.desde && e.rango.antes_de >= pedido.antes_de);
    let (esperado, n) = memoria.total(e.rango);
    assert_eq!((&e.variables, e.lecturas), (&esperado, n), "{pedido:?}");
    assert_eq!(e.por_hora.iter().map(|(_, n)| n).sum::<i64>(), n);
    for ancho in ["1h", "3h", "1d", "7d"] {
        let intervalo = Intervalo::parse(ancho).unwrap();
        let (rango, _) = intervalo.cubre(pedido);
        for solo in [None, Some("b")] {
            let mut figuras = BTreeMap::new();
            for f in buckets(&mut tx, id, rango, intervalo, solo).await.unwrap().unwrap() {
                assert!(figuras.insert((f.inicio, f.variable), f.total).is_none());
            }
            let mut esperadas = BTreeMap::new();
            let mut inicio = rango.desde;
            while inicio < rango.antes_de {
                let antes_de = Timestamp::clamped(intervalo.inicio(intervalo.numero(inicio) + 1).micros());
                let (total, _) = memoria.total(Rango { desde: inicio, antes_de });
                let suyas = total.into_iter().filter(|(v, _)| solo.is_none_or(|s| s == v));
                esperadas.extend(suyas.map(|(v, t)| ((inicio, v), t)));
                inicio = antes_de;
            }
            assert_eq!(figuras, esperadas, "{ancho} of {solo:?}");
        }
    }
}

async fn play(pasos: Vec<Paso>, minutos: (i64, i64)) {
    let (_dir, store, id) = with_sensor().await;
    let (mut memoria, mut marcas, mut sumadas) = (Memoria::default(), Vec::new(), Vec::new());
    for paso in pasos {
        match paso {
            Paso::Llegan(llegan) => write(&store, &memoria.recibe(id, &llegan)).await,
            // Each of the task's three transactions, with anything between them, or never finished.
            Paso::Toma(n) => (marcas, sumadas) = (take(&store, n).await, Vec::new()),
            Paso::Suma => sumadas = sum(&store, &marcas).await,
            Paso::Escribe if sumadas.is_empty() => {}
            Paso::Escribe => put(&store, &std::mem::take(&mut sumadas), &std::mem::take(&mut marcas)).await,
            Paso::Purga(minuto, n) => {
                let antes_de = CERO + minuto * MINUTO;
                let mut tx = store.write().await.unwrap();
                horas::purge(&mut tx, id, Timestamp::clamped(antes_de), n).await.unwrap();
                tx.commit().await.unwrap();
                memoria.purga(antes_de, usize::try_from(n).unwrap());
            }
        }
        check(&store, id, &memoria, minutos).await;
    }
    // And once everything is summed.
    loop {
        let marcas = take(&store, 1_000).await;
        if marcas.is_empty() {
            break;
        }
        let sumadas = sum(&store, &marcas).await;
        put(&store, &sumadas, &marcas).await;
    }
    check(&store, id, &memoria, minutos).await;
    // The account of what the sensor takes is that of its hours.
    let mut tx = store.read().await.unwrap();
    let horas = horas::readings(&mut tx, id, Timestamp::MIN, Timestamp::MAX, i64::MAX).await.unwrap();
    let bytes: i64 = horas::sizes(&mut tx).await.unwrap().iter().map(|s| s.bytes).sum();
    assert_eq!(horas.iter().map(|h| h.bytes).sum::<i64>(), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn an_answer_is_exact_at_every_moment(
        pasos in proptest::collection::vec(paso(), 1..25), a in 0_i64..600, largo in 1_i64..600,
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(pasos, (a, a + largo)));
    }
}

#[tokio::test]
async fn what_was_stored_before_there_were_sums_is_summed_step_by_step() {
    let (_dir, store, id) = with_sensor().await;
    let mut memoria = Memoria::default();
    let llegan: Vec<_> = (0..600).map(|m| (m, m % 3 == 0, 7)).collect();
    let mut tx = store.write().await.unwrap();
    // As an older version wrote: no marks.
    lecturas::write(&mut tx, &memoria.recibe(id, &llegan)).await.unwrap();
    horas::backfill(&mut tx, id, Timestamp::clamped(CERO + 600 * MINUTO)).await.unwrap();
    tx.commit().await.unwrap();
    let mut pasos = 0;
    loop {
        check(&store, id, &memoria, (17, 583)).await;
        let mut tx = store.read().await.unwrap();
        let paso = horas::sum_next(&mut tx, 100).await.unwrap();
        drop(tx);
        let Some((de, sumadas, hasta)) = paso else { break };
        // What comes late to an hour that was passed marks it, and is found.
        write(&store, &memoria.recibe(id, &[(pasos * 60, false, -9), (pasos * 60 + 61, true, 9)])).await;
        let mut tx = store.write().await.unwrap();
        horas::put(&mut tx, &sumadas, &[], Some((de, hasta))).await.unwrap();
        tx.commit().await.unwrap();
        pasos += 1;
    }
    assert!(pasos > 2, "in steps: {pasos}");
}

#[tokio::test]
async fn a_peak_survives_whatever_the_curve_is_made_of() {
    let (_dir, store, id) = with_sensor().await;
    // 20 days at one a minute: 28,800 readings, with one peak and one dip.
    let valor = |m: i64| match m {
        7_777 => 80.0,
        20_002 => -40.0,
        m => f64::from(i32::try_from(m % 1_440).unwrap()) / 100.0,
    };
    let de = |m: i64| {
        let mut valores = Valores::new();
        valores.set(Variable::TEMPERATURA, valor(m));
        Fila { id_sensor: id, ts: Timestamp::clamped(CERO + m * MINUTO), valores }
    };
    for dia in 0..20 {
        write(&store, &(dia * 1_440..(dia + 1) * 1_440).map(de).collect::<Vec<_>>()).await;
    }
    let todo =
        Rango { desde: Timestamp::clamped(CERO), antes_de: Timestamp::clamped(CERO + 28_800 * MINUTO) };
    for fuente in [Fuente::Lecturas, Fuente::Horas] {
        let mut tx = store.read().await.unwrap();
        let curva = curve(&mut tx, id, todo, Some("temperatura"), 100).await.unwrap().unwrap();
        drop(tx);
        assert_eq!(curva.fuente, fuente);
        let puntos = &curva.variables["temperatura"];
        assert!(puntos.len() <= 100 && puntos.is_sorted_by(|a, b| a.0 < b.0));
        for m in [7_777, 20_002] {
            let punto = (Timestamp::clamped(CERO + m * MINUTO), valor(m));
            assert!(puntos.contains(&punto), "{fuente:?} lost the one at minute {m}");
        }
        // The first day goes: what is left of it are its hours.
        let mut tx = store.write().await.unwrap();
        horas::purge(&mut tx, id, Timestamp::clamped(CERO + 1_440 * MINUTO), 5_000).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// Sums all that is marked.
async fn sum_all(store: &Store) {
    loop {
        let marcas = take(store, 1_000).await;
        if marcas.is_empty() {
            return;
        }
        let sumadas = sum(store, &marcas).await;
        put(store, &sumadas, &marcas).await;
    }
}

#[tokio::test]
async fn the_largest_numbers_there_are_come_to_figures_that_are_numbers() {
    let (_dir, store, id) = with_sensor().await;
    // Hours of nothing but the largest, of nothing but the smallest, and of both: sums that no double holds,
    // and one minus the other.
    let de = |m: i64| {
        let mut valores = Valores::new();
        let signo = [1.0, -1.0, if m % 2 == 0 { 1.0 } else { -1.0 }][usize::try_from(m / 60).unwrap() % 3];
        valores.set(Variable::new("a").unwrap(), signo * f64::MAX);
        Fila { id_sensor: id, ts: Timestamp::clamped(CERO + m * MINUTO), valores }
    };
    write(&store, &(0..1_440).map(de).collect::<Vec<_>>()).await;
    let rango =
        Rango { desde: Timestamp::clamped(CERO), antes_de: Timestamp::clamped(CERO + 1_440 * MINUTO) };
    for (step, purga) in [("from readings", 0), ("from hours", 0), ("from both", 600), ("gone", 1_440)] {
        if step != "from readings" {
            sum_all(&store).await;
        }
        let mut tx = store.write().await.unwrap();
        let antes_de = Timestamp::clamped(CERO + purga * MINUTO);
        // In small steps, so that an hour is added to more than once.
        while !horas::purge(&mut tx, id, antes_de, 25).await.unwrap().listo {}
        tx.commit().await.unwrap();
        let mut tx = store.read().await.unwrap();
        let e = statistics(&mut tx, id, rango).await.unwrap().unwrap();
        let mut figuras = vec![e.variables["a"]];
        for ancho in ["1h", "1d"] {
            let intervalo = Intervalo::parse(ancho).unwrap();
            let cubetas = buckets(&mut tx, id, rango, intervalo, None).await.unwrap().unwrap();
            assert_eq!(cubetas.iter().map(|f| f.total.n).sum::<i64>(), 1_440, "{step}, {ancho}");
            figuras.extend(cubetas.into_iter().map(|f| f.total));
        }
        for f in figuras {
            assert!(f.media().is_finite() && f.min <= f.media() && f.media() <= f.max, "{step}: {f:?}");
        }
    }
}

/// Readings with names that a device has invented: `n` a minute, none twice.
fn invented(id: i64, minutos: i64, n: i64) -> Vec<Fila> {
    let de = |m: i64| {
        let mut valores = Valores::new();
        for v in 0..n {
            valores.set(Variable::new(&format!("v{}", m * n + v)).unwrap(), 1.0);
        }
        Fila { id_sensor: id, ts: Timestamp::clamped(CERO + m * MINUTO), valores }
    };
    (0..minutos).map(de).collect()
}

#[tokio::test]
async fn what_no_answer_has_room_for_is_said_and_not_gathered() {
    let (_dir, store, id) = with_sensor().await;
    write(&store, &invented(id, 240, 250)).await;
    let ts = |m: i64| Timestamp::clamped(CERO + m * MINUTO);
    let rango = |minutos| Rango { desde: ts(0), antes_de: ts(minutos) };
    for step in ["from readings", "from hours"] {
        let mut tx = store.read().await.unwrap();
        let hora = Intervalo::parse("1h").unwrap();
        // 1,000 variables have room, and no more; nor do 50,000 figures and more in buckets.
        assert_eq!(statistics(&mut tx, id, rango(4)).await.unwrap().unwrap().variables.len(), 1_000);
        assert_eq!(statistics(&mut tx, id, rango(240)).await.unwrap(), None, "{step}");
        assert_eq!(buckets(&mut tx, id, rango(240), hora, None).await.unwrap(), None, "{step}");
        let una = buckets(&mut tx, id, rango(240), hora, Some("v7")).await.unwrap().unwrap();
        assert_eq!(una.len(), 1, "{step}");
        drop(tx);
        sum_all(&store).await;
    }
}

#[tokio::test]
async fn hours_come_in_pages_each_whole_and_once() {
    let (_dir, store, id) = with_sensor().await;
    let mut memoria = Memoria::default();
    let llegan: Vec<_> = (0..20).flat_map(|h| [(h * 60, true, 3), (h * 60 + 1, false, 5)]).collect();
    write(&store, &memoria.recibe(id, &llegan)).await;
    sum_all(&store).await;
    let mut tx = store.read().await.unwrap();
    for (limite, variable, pages) in [(7, None, 7), (3, None, 20), (100, None, 1), (7, Some("a"), 4)] {
        let (mut desde, mut seen, mut n) = (Timestamp::MIN, Vec::new(), 0);
        loop {
            let pagina = horas::hours(&mut tx, id, desde, Timestamp::MAX, variable, limite).await.unwrap();
            seen.extend(pagina.cubetas);
            n += 1;
            match pagina.sigue {
                Some(sigue) => desde = sigue,
                None => break,
            }
        }
        let expected: Vec<_> = (0..20).map(|h| Timestamp::clamped(CERO + h * 60 * MINUTO)).collect();
        assert_eq!(seen.iter().map(|c| c.inicio).collect::<Vec<_>>(), expected);
        let each = if variable.is_some() { 1 } else { 2 };
        assert!(seen.iter().all(|c| c.variables.len() == each));
        assert_eq!(n, pages, "pages of less than {limite}");
    }
    // An hour that no page has room for ends it.
    let pagina = horas::hours(&mut tx, id, Timestamp::MIN, Timestamp::MAX, None, 2).await.unwrap();
    assert!(pagina.cubetas.is_empty() && pagina.sigue.is_some());
}

#[tokio::test]
async fn a_sensor_that_stays_after_all_is_summed_again() {
    let (_dir, store, id) = with_sensor().await;
    let mut memoria = Memoria::default();
    write(&store, &memoria.recibe(id, &[(1, true, 3)])).await;
    // It was to be removed; the database went away in the middle of that.
    let mut tx = store.write().await.unwrap();
    let mut conocidas = store.marcas().lock().await;
    horas::forget(&mut tx, &mut conocidas, id).await.unwrap();
    tx.commit().await.unwrap();
    drop(conocidas);
    // Into the same hour.
    write(&store, &memoria.recibe(id, &[(2, true, 5)])).await;
    sum_all(&store).await;
    check(&store, id, &memoria, (0, 60)).await;
    let mut tx = store.read().await.unwrap();
    let hours = horas::readings(&mut tx, id, Timestamp::MIN, Timestamp::MAX, 10).await.unwrap();
    assert_eq!(hours.iter().map(|h| h.n).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_curve_of_more_points_than_an_answer_has_room_for_is_refused_and_each_by_itself_is_not() {
    let (_dir, store, id) = with_sensor().await;
    // 250 variables, 801 readings of each: 200,250 points.
    let de = |m: i64| {
        let mut valores = Valores::new();
        for v in 0..250 {
            valores.set(Variable::new(&format!("v{v}")).unwrap(), 1.0);
        }
        Fila { id_sensor: id, ts: Timestamp::clamped(CERO + m * MINUTO), valores }
    };
    write(&store, &(0..801).map(de).collect::<Vec<_>>()).await;
    let rango =
        |n: i64| Rango { desde: Timestamp::clamped(CERO), antes_de: Timestamp::clamped(CERO + n * MINUTO) };
    let mut tx = store.read().await.unwrap();
    assert_eq!(curve(&mut tx, id, rango(801), None, 5_000).await.unwrap(), None);
    for (n, variable, puntos, each) in
        [(801, Some("v7"), 5_000, 801), (800, None, 5_000, 800), (801, None, 800, 800)]
    {
        let curva = curve(&mut tx, id, rango(n), variable, puntos).await.unwrap().unwrap();
        assert_eq!(curva.variables.len(), if variable.is_some() { 1 } else { 250 });
        assert!(curva.variables.values().all(|suyos| suyos.len() == each));
    }
}

/// Has so many readings stored, a second apart, each with these values: more than are written one by one.
fn flood(dir: &TempDir, id: i64, n: i64, valores: &str) {
    let script = "import sqlite3, sys\nid, cero, n = map(int, sys.argv[2:5])\n\
                  db = sqlite3.connect(sys.argv[1], timeout=10)\ndb.execute('DELETE FROM lecturas')\n\
                  db.executemany('INSERT INTO lecturas VALUES (?, ?, ?)', ((id, cero + i * 1000000, sys.argv[5]) for i in range(n)))\n\
                  db.commit()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script]).arg(dir.path().join("a.db"));
    python.args([id, CERO, n].map(|n| n.to_string())).arg(valores);
    assert!(python.status().unwrap().success());
}

#[tokio::test]
async fn no_more_values_are_held_for_a_curve_than_there_is_room_for() {
    let (dir, store, id) = with_sensor().await;
    let pares: Vec<String> = (0..250).map(|v| format!("\"v{v}\":1.5")).collect();
    flood(&dir, id, 8_001, &format!("{{{}}}", pares.join(",")));
    let rango = |n: i64| Rango {
        desde: Timestamp::clamped(CERO),
        antes_de: Timestamp::clamped(CERO + n * 1_000_000),
    };
    let mut tx = store.read().await.unwrap();
    // 2,000,250 values, and 2,000,000, of which ten points each are asked for.
    assert_eq!(curve(&mut tx, id, rango(8_001), None, 10).await.unwrap(), None);
    assert_eq!(curve(&mut tx, id, rango(8_000), None, 10).await.unwrap().unwrap().variables.len(), 250);
    assert_eq!(
        curve(&mut tx, id, rango(8_001), Some("v7"), 10).await.unwrap().unwrap().variables["v7"].len(),
        10
    );
}

#[tokio::test]
async fn a_million_readings_are_summed_in_short_buckets_and_no_more() {
    let (dir, store, id) = with_sensor().await;
    flood(&dir, id, 1_000_001, "{\"a\":0.5}");
    let rango = |n: i64| Rango {
        desde: Timestamp::clamped(CERO),
        antes_de: Timestamp::clamped(CERO + n * 1_000_000),
    };
    let media = Intervalo::parse("30m").unwrap();
    let mut tx = store.read().await.unwrap();
    assert_eq!(buckets(&mut tx, id, rango(1_000_001), media, None).await.unwrap(), None);
    let figuras = buckets(&mut tx, id, rango(180_000), media, None).await.unwrap().unwrap();
    assert_eq!((figuras.len(), figuras[0].total.n), (100, 1_800));
}
