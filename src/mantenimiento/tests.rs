//! The tasks, a round at a time, on a store of the test's own and with a clock that the test moves.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::aviso::{Aviso, Avisos};
use super::disco::{self, Memoria, Que};
use super::{Ajustes, Mantenimiento, UN_DIA, horas as sumas, retencion};
use crate::alertas::{self, ALMACENAMIENTO};
use crate::domain::{
    Alerta, BUILD_DATE, Clock as _, DeviceId, EstadoAlerta, ManualClock, SensorRef, Timestamp, Valores,
    Variable,
};
use crate::historia::{self, Rango};
use crate::ingest::{self, Ingest, Resolver};
use crate::realtime::{Hub, Rutas};
use crate::store::auditoria::Autor;
use crate::store::lecturas::Fila;
use crate::store::{self, Store, empresas, horas, lecturas, sensores};

const HORA: i64 = Timestamp::HORA;
const DIA: i64 = 24 * HORA;

struct Banco {
    store: Store,
    clock: Arc<ManualClock>,
    dir: tempfile::TempDir,
}

impl Banco {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = store::Options { readers: 4, busy_timeout: Duration::from_secs(5) };
        let store = Store::open_sqlite(&dir.path().join("t.db"), options).await.unwrap();
        // In the middle of an hour, far enough from the beginning of time.
        let ahora = BUILD_DATE.plus(Duration::from_secs(100 * 86_400)).hora().micros() + HORA / 2;
        let clock = Arc::new(ManualClock::new(Timestamp::clamped(ahora)));
        Self { store, clock, dir }
    }

    /// With a writer that works, or with one that never answers.
    async fn mantenimiento(&self, bytes: u64, escribe: bool) -> Mantenimiento {
        let (hub, drena) = (Hub::default(), CancellationToken::new());
        let ajustes = ingest::Ajustes { cola: 100, lote: 50, rechazos_por_sensor: 10 };
        let (ingest, escritor) =
            Ingest::start(self.store.clone(), (hub, Rutas::default()), self.clock.clone(), ajustes, drena)
                .await
                .unwrap();
        // One that never answers has a queue all the same.
        drop(tokio::spawn(async move {
            if !escribe {
                std::future::pending::<()>().await;
            }
            escritor.await;
        }));
        let dias = |n: u64| Duration::from_secs(n * 86_400);
        let ajustes = Ajustes {
            lecturas: dias(730),
            horas: dias(3_650),
            rechazos: dias(7),
            auditoria: dias(365),
            disco: bytes,
        };
        Mantenimiento::new(self.store.clone(), ingest, self.clock.clone(), ajustes, CancellationToken::new())
    }

    async fn empresa(&self, ruc: &str) -> i64 {
        let mut tx = self.store.write().await.unwrap();
        let nueva = empresas::Nueva { ruc, razon_social: "F", email: None, telefono: None };
        let id = empresas::create(&mut tx, nueva, Timestamp::MIN).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn sensor(&self, id_empresa: i64, device_id: &str) -> i64 {
        let mut tx = self.store.write().await.unwrap();
        let nuevo = sensores::Nuevo {
            id_empresa,
            device_id: &DeviceId::new(device_id).unwrap(),
            nombre: device_id,
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
        id
    }

    /// So many microseconds before now.
    fn hace(&self, micros: i64) -> Timestamp {
        Timestamp::clamped(self.clock.now().micros() - micros)
    }

    /// `n` readings from a moment on, one every `cada`: as the writer stores them, or as an older version did,
    /// never summed.
    async fn lee(&self, id_sensor: i64, desde: Timestamp, cada: i64, n: i64, marcadas: bool) {
        let mut valores = Valores::new();
        valores.set(Variable::TEMPERATURA, 20.25);
        valores.set(Variable::HUMEDAD_AIRE, 55.5);
        let ts = |i: i64| Timestamp::clamped(desde.micros() + i * cada);
        let filas: Vec<Fila> =
            (0..n).map(|i| Fila { id_sensor, ts: ts(i), valores: valores.clone() }).collect();
        let mut tx = self.store.write_first().await.unwrap();
        lecturas::write(&mut tx, &filas).await.unwrap();
        lecturas::write_latest(&mut tx, &filas[filas.len() - 1..]).await.unwrap();
        let mut conocidas = self.store.marcas().lock().await;
        let mut faltan = Vec::new();
        if marcadas {
            faltan = conocidas.faltan(filas.iter().map(|f| (f.id_sensor, f.ts.hora())));
            horas::mark(&mut tx, &faltan).await.unwrap();
        } else {
            horas::backfill(&mut tx, id_sensor, ts(n)).await.unwrap();
        }
        tx.commit().await.unwrap();
        conocidas.recuerda(faltan);
    }

    async fn pendientes(&self, id_sensor: i64) -> usize {
        let mut tx = self.store.read().await.unwrap();
        horas::pending(&mut tx, id_sensor, Timestamp::MIN, Timestamp::MAX).await.unwrap().len()
    }

    async fn relleno(&self, id_sensor: i64) -> bool {
        let mut tx = self.store.read().await.unwrap();
        horas::history(&mut tx, id_sensor).await.unwrap().relleno.is_some()
    }

    /// Readings that are there, of a sensor.
    async fn crudas(&self, id_sensor: i64) -> i64 {
        let mut tx = self.store.read().await.unwrap();
        lecturas::count(&mut tx, id_sensor, Timestamp::MIN, Timestamp::MAX, i64::MAX).await.unwrap()
    }

    /// Readings that its history came to, gone or not.
    async fn contadas(&self, id_sensor: i64) -> i64 {
        let mut tx = self.store.read().await.unwrap();
        let todo = Rango { desde: Timestamp::MIN, antes_de: Timestamp::MAX };
        historia::statistics(&mut tx, id_sensor, todo).await.unwrap().unwrap().lecturas
    }

    /// Sums all that is over.
    async fn suma(&self, m: &Mantenimiento) {
        let mut turnos = sumas::Turnos::default();
        while sumas::round(m, &mut turnos).await.unwrap().is_some() {}
    }

    async fn abiertas(&self) -> Vec<Alerta> {
        let mut tx = self.store.read().await.unwrap();
        store::alertas::open_of_kind(&mut tx, ALMACENAMIENTO).await.unwrap()
    }
}

#[tokio::test]
async fn a_device_with_years_to_catch_up_holds_up_nobodys_sums() {
    let b = Banco::new().await;
    let empresa = b.empresa("20123456789").await;
    let flood = b.sensor(empresa, "flood").await;
    let (other, older) = (b.sensor(empresa, "other").await, b.sensor(empresa, "older").await);
    // A reading in each of 1,000 hours, long ago; one three hours ago; and some from before there were sums.
    b.lee(flood, b.hace(90 * DIA), HORA, 1_000, true).await;
    b.lee(older, b.hace(30 * DIA), HORA, 100, false).await;
    b.lee(other, b.hace(3 * HORA), HORA, 1, true).await;
    let m = b.mantenimiento(0, true).await;
    let mut turnos = sumas::Turnos::default();
    let mut rounds = 0;
    while b.pendientes(other).await > 0 || b.relleno(older).await {
        sumas::round(&m, &mut turnos).await.unwrap();
        rounds += 1;
        assert!(rounds < 6, "nobody else has a turn");
        // It goes on and on.
        b.lee(flood, b.hace(90 * DIA), HORA, 1_000, true).await;
    }
    assert!(b.pendientes(flood).await > 500, "what it has to catch up is not done first");
    b.suma(&m).await;
    assert_eq!(b.pendientes(flood).await, 0, "and it is done");
    assert_eq!(b.contadas(flood).await, 1_000);
}

#[tokio::test]
async fn every_sensor_has_its_turn_however_many_there_are() {
    let b = Banco::new().await;
    let empresa = b.empresa("20123456789").await;
    // More than are looked at in one go, and the only one with an hour that is over is the last.
    let mut last = 0;
    for n in 0..600 {
        last = b.sensor(empresa, &format!("s{n}")).await;
        b.lee(last, b.hace(0), HORA, 1, true).await;
    }
    b.lee(last, b.hace(3 * HORA), HORA, 1, true).await;
    let m = b.mantenimiento(0, true).await;
    b.suma(&m).await;
    assert_eq!(b.pendientes(last).await, 1, "the hour that is not over yet");
    // Nor is the last one forgotten when it has something that is past its days.
    b.lee(last, b.hace(800 * DIA), HORA, 2, true).await;
    retencion::round(&m, &mut None).await.unwrap();
    assert_eq!(b.crudas(last).await, 2);
    assert_eq!(b.contadas(last).await, 4);
}

#[tokio::test]
async fn readings_that_cannot_be_read_stop_nobodys_maintenance() {
    let b = Banco::new().await;
    let (first, second) = (b.empresa("20123456789").await, b.empresa("20999999999").await);
    let (bad, other) = (b.sensor(first, "bad").await, b.sensor(second, "other").await);
    for sensor in [bad, other] {
        b.lee(sensor, b.hace(900 * DIA), HORA, 50, false).await;
        b.lee(sensor, b.hace(90 * DIA), HORA, 500, true).await;
    }
    // As another program wrote them, or a disk made them of what was written: in every way there is.
    let malas = [
        "'roto'",
        "''",
        "'}{'",
        "'{\"temperatura\": 20.25, \"nota\":\"}\"}'",
        "'9{\"a\":1}'",
        "'{\"a\":1x}'",
        "x'ff7b22ff'",
    ];
    let script =
        "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], timeout=10)\ndb.executescript(sys.argv[2])";
    for (n, mala) in malas.into_iter().enumerate() {
        for desde in [900 * DIA, 90 * DIA] {
            let ts = b.hace(desde).micros() + i64::try_from(n).unwrap() * HORA + HORA / 4;
            let sql = format!("INSERT INTO lecturas VALUES ({bad}, {ts}, {mala})");
            let mut python = std::process::Command::new("python3");
            python.args(["-c", script]).arg(b.dir.path().join("t.db")).arg(&sql);
            assert!(python.status().unwrap().success(), "{sql}");
        }
    }
    let m = b.mantenimiento(1, true).await;
    b.suma(&m).await;
    assert!(!b.relleno(bad).await && !b.relleno(other).await, "what was there before is summed");
    assert_eq!((b.pendientes(bad).await, b.pendientes(other).await), (0, 0));
    retencion::round(&m, &mut None).await.unwrap();
    assert_eq!(b.crudas(other).await, 500, "what is past its days has gone, and nothing else");
    assert_eq!(b.crudas(bad).await, 500 + 7);
    assert_eq!(b.contadas(other).await, 550);
    disco::round(&m, &mut Memoria::load(&m).await.unwrap()).await.unwrap();
    assert_eq!((b.crudas(bad).await, b.crudas(other).await), (0, 0), "for want of disk all may go");
    // The oldest hours as well. Of those that stay, what is an object is a reading, whatever it lacks.
    assert_eq!((b.contadas(bad).await, b.contadas(other).await), (500 + 2, 500));
}

#[tokio::test]
async fn an_empresa_may_keep_its_hours_for_fewer_days_than_others() {
    let b = Banco::new().await;
    let (short, long) = (b.empresa("20123456789").await, b.empresa("20999999999").await);
    let (s, l) = (b.sensor(short, "s").await, b.sensor(long, "l").await);
    for sensor in [s, l] {
        b.lee(sensor, b.hace(100 * DIA), HORA, 100 * 24, true).await;
    }
    let mut tx = b.store.write().await.unwrap();
    for (id, dias, horas) in [(short, 10, Some(30)), (long, 10, None)] {
        let ficha = empresas::get(&mut tx, id).await.unwrap().unwrap();
        let ficha = empresas::Ficha { retencion_dias: Some(dias), retencion_horas_dias: horas, ..ficha };
        empresas::update(&mut tx, &ficha).await.unwrap();
    }
    tx.commit().await.unwrap();
    let m = b.mantenimiento(0, true).await;
    b.suma(&m).await;
    retencion::round(&m, &mut None).await.unwrap();
    for sensor in [s, l] {
        let left = b.crudas(sensor).await;
        assert!((10 * 24..11 * 24).contains(&left), "{left} readings");
    }
    let left = b.contadas(s).await;
    assert!((30 * 24..31 * 24).contains(&left), "{left} in hours");
    assert_eq!(b.contadas(l).await, 100 * 24, "the other keeps its own");
}

/// What is written to the log, as text.
#[derive(Clone, Default)]
struct Diario(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Diario {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_says_that_history_goes_for_want_of_disk_and_that_none_is_left() {
    use tracing::instrument::WithSubscriber as _;
    let b = Banco::new().await;
    let empresa = b.empresa("20123456789").await;
    let s = b.sensor(empresa, "s").await;
    b.lee(s, b.hace(60 * DIA), 60_000_000, 30_000, true).await;
    b.suma(&b.mantenimiento(0, true).await).await;
    let used = b.store.disk().await.unwrap().unwrap().usado();
    for (bytes, said) in
        [(used, "the oldest readings go before their time"), (1, "no history is left that may go")]
    {
        let m = b.mantenimiento(bytes, true).await;
        let (diario, mut memoria) = (Diario::default(), Memoria::load(&m).await.unwrap());
        let writer = diario.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let twice = async {
            disco::round(&m, &mut memoria).await.unwrap();
            disco::round(&m, &mut memoria).await.unwrap();
        };
        twice.with_subscriber(subscriber).await;
        let text = String::from_utf8(diario.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches(said).count(), 1, "once: {text}");
        assert!(text.contains("maximo="), "{text}");
    }
}

#[tokio::test]
async fn the_budget_is_kept_while_there_is_history_that_nobody_has_summed() {
    let b = Banco::new().await;
    let (large, small) = (b.empresa("20123456789").await, b.empresa("20999999999").await);
    let (l, s) = (b.sensor(large, "l").await, b.sensor(small, "s").await);
    b.lee(l, b.hace(60 * DIA), 60_000_000, 30_000, false).await;
    b.lee(s, b.hace(90 * DIA), HORA, 500, false).await;
    let before = b.store.disk().await.unwrap().unwrap().usado();
    let m = b.mantenimiento(before, true).await;
    let mut memoria = Memoria::load(&m).await.unwrap();
    disco::round(&m, &mut memoria).await.unwrap();
    let after = b.store.disk().await.unwrap().unwrap().usado();
    assert!(after < before / 10 * 9, "{before} bytes before, {after} after");
    assert!(b.crudas(l).await < 30_000);
    assert_eq!(b.crudas(s).await, 500, "who has less than a share loses nothing");
    // What went is still counted, and so is what is summed later.
    assert_eq!((b.contadas(l).await, b.contadas(s).await), (30_000, 500));
    b.suma(&m).await;
    assert_eq!((b.contadas(l).await, b.contadas(s).await), (30_000, 500));
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_makes_nothing_be_forgotten() {
    let b = Banco::new().await;
    let empresa = b.empresa("20123456789").await;
    let s = b.sensor(empresa, "s").await;
    b.lee(s, b.hace(90 * DIA), HORA, 500, true).await;
    let m = b.mantenimiento(1, true).await;
    b.suma(&m).await;
    let right = b.clock.now();
    b.clock.set(right.plus(20 * 366 * UN_DIA));
    retencion::round(&m, &mut None).await.unwrap();
    assert_eq!((b.crudas(s).await, b.contadas(s).await), (500, 500));
    // Nor is what is a day old by such a clock, at whatever price in room.
    b.lee(s, Timestamp::clamped(right.micros() - 12 * HORA), HORA, 3, true).await;
    b.clock.set(right.plus(20 * 366 * UN_DIA));
    disco::give(&m, &mut Memoria::default(), empresa, Que::Lecturas(UN_DIA), 0).await.unwrap();
    assert!(b.crudas(s).await >= 3, "what is twelve hours old stays");
}

#[tokio::test]
async fn no_hour_goes_before_its_readings() {
    let b = Banco::new().await;
    let empresa = b.empresa("20123456789").await;
    let s = b.sensor(empresa, "s").await;
    b.lee(s, b.hace(60 * DIA), HORA, 60 * 24, true).await;
    let m = b.mantenimiento(1, true).await;
    b.suma(&m).await;
    // An empresa that keeps its hours for fewer days than its readings: they stand for these in every answer.
    let mut tx = b.store.write().await.unwrap();
    let ficha = empresas::get(&mut tx, empresa).await.unwrap().unwrap();
    empresas::update(&mut tx, &empresas::Ficha { retencion_horas_dias: Some(2), ..ficha }).await.unwrap();
    tx.commit().await.unwrap();
    retencion::round(&m, &mut None).await.unwrap();
    assert_eq!(b.contadas(s).await, 60 * 24, "its readings are kept for two years");
    // For want of disk hours go too, but not these.
    disco::give(&m, &mut Memoria::default(), empresa, Que::Horas(UN_DIA), 0).await.unwrap();
    assert_eq!(b.contadas(s).await, 60 * 24);
    // Once its readings have gone, an hour may.
    disco::give(&m, &mut Memoria::default(), empresa, Que::Lecturas(UN_DIA), 0).await.unwrap();
    disco::give(&m, &mut Memoria::default(), empresa, Que::Horas(UN_DIA), 0).await.unwrap();
    let left = b.contadas(s).await;
    assert!((58 * 24..60 * 24).contains(&left), "{left}");
}

#[tokio::test]
async fn a_writer_that_never_answers_keeps_no_room_from_being_made() {
    let b = Banco::new().await;
    let empresa = b.empresa("20123456789").await;
    let s = b.sensor(empresa, "s").await;
    b.lee(s, b.hace(800 * DIA), HORA, 100, true).await;
    b.lee(s, b.hace(3 * DIA), HORA, 48, true).await;
    let m = b.mantenimiento(1, false).await;
    let patience = Duration::from_secs(30);
    // It would have to hear of the empresas' days before the first goes.
    tokio::time::timeout(patience, retencion::round(&m, &mut None)).await.expect("in time").unwrap();
    assert_eq!(b.crudas(s).await, 48);
    // And to open an alert, and to close one.
    let mut memoria = Memoria::default();
    tokio::time::timeout(patience, disco::round(&m, &mut memoria)).await.expect("in time").unwrap();
    assert!(b.crudas(s).await < 48);
    let quien = SensorRef { id_sensor: s, id_empresa: empresa, device_id: DeviceId::new("s").unwrap() };
    let alerta = alertas::almacenamiento(&quien, 1, 1, b.clock.now());
    let mut tx = b.store.write().await.unwrap();
    store::alertas::create(&mut tx, &alerta, 0).await.unwrap();
    tx.commit().await.unwrap();
    b.clock.advance(UN_DIA + UN_DIA);
    tokio::time::timeout(patience, disco::round(&m, &mut memoria)).await.expect("in time").unwrap();
}

#[tokio::test]
async fn the_alert_is_that_of_a_sensor_in_use() {
    let b = Banco::new().await;
    let empresa = b.empresa("20123456789").await;
    let (gone, silent) = (b.sensor(empresa, "gone").await, b.sensor(empresa, "silent").await);
    let (newer, used) = (b.sensor(empresa, "newer").await, b.sensor(empresa, "used").await);
    // The oldest history is that of one which is retired.
    b.lee(gone, b.hace(90 * DIA), HORA, 100, true).await;
    b.lee(newer, b.hace(40 * DIA), HORA, 100, true).await;
    b.lee(used, b.hace(50 * DIA), HORA, 100, true).await;
    let mut tx = b.store.write().await.unwrap();
    sensores::retire(&mut tx, empresa, gone).await.unwrap();
    tx.commit().await.unwrap();
    let m = b.mantenimiento(1, true).await;
    b.suma(&m).await;
    disco::round(&m, &mut Memoria::default()).await.unwrap();
    let alerts = b.abiertas().await;
    assert_eq!(alerts.iter().map(|a| a.id_sensor).collect::<Vec<_>>(), [used], "not {gone} or {silent}");
}

#[tokio::test]
async fn an_empresa_is_told_once_across_restarts_and_again_only_after_a_day() {
    let b = Banco::new().await;
    let id_empresa = b.empresa("20123456789").await;
    let id_sensor = Some(b.sensor(id_empresa, "s").await);
    let aviso = Aviso { id_empresa, id_sensor, usado: 95 };
    // A writer that is held up: it is not taken for told.
    let (stuck, m) = (b.mantenimiento(100, false).await, b.mantenimiento(100, true).await);
    let mut avisos = Avisos::default();
    avisos.gave(&stuck, aviso).await;
    assert!(b.abiertas().await.is_empty());
    b.clock.advance(Duration::from_secs(61));
    avisos.gave(&m, aviso).await;
    assert_eq!(b.abiertas().await.len(), 1);
    // A restart, with the alert open, and with the alert closed by somebody.
    let mut avisos = Avisos::load(&m).await.unwrap();
    avisos.gave(&m, aviso).await;
    assert_eq!(b.abiertas().await.len(), 1);
    let id_alerta = b.abiertas().await[0].id_alerta;
    m.ingest
        .resolver(Resolver {
            id_alerta,
            estado: EstadoAlerta::Resuelta,
            por: Autor { user_id: "ana".to_owned(), ..Autor::servidor(1, b.clock.now()) },
            notas: None,
        })
        .await
        .unwrap();
    for hours in [0, 12] {
        b.clock.advance(Duration::from_secs(hours * 3_600));
        let mut avisos = Avisos::load(&m).await.unwrap();
        avisos.gave(&m, aviso).await;
        assert!(b.abiertas().await.is_empty(), "it was closed {hours} h ago");
    }
    b.clock.advance(UN_DIA);
    Avisos::load(&m).await.unwrap().gave(&m, aviso).await;
    assert_eq!(b.abiertas().await.len(), 1, "history goes on going");
    // After a restart it closes when nothing has gone for a day, and not before.
    let mut avisos = Avisos::load(&m).await.unwrap();
    b.clock.advance(UN_DIA / 2);
    avisos.close(&m).await.unwrap();
    assert_eq!(b.abiertas().await.len(), 1);
    b.clock.advance(UN_DIA);
    avisos.close(&m).await.unwrap();
    assert!(b.abiertas().await.is_empty());
}
