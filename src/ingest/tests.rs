//! The writer against a store of the test's own, with a clock that the test moves.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::reenvios::{Reenvios, Ya};
use super::{Ajustes, Ingest, Mensaje, Resultado, Salud};
use crate::domain::{
    BUILD_DATE, DeviceId, EstadoAlerta, Lectura, ManualClock, Motivo, SensorRef, Timestamp, Valores, Variable,
};
use crate::realtime::{Hub, Rutas};
use crate::store::{self, Store, sensores};

struct Banco {
    ingest: Ingest,
    store: Store,
    clock: Arc<ManualClock>,
    sensor: SensorRef,
    drena: CancellationToken,
    escritor: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

async fn banco() -> Banco {
    let dir = tempfile::tempdir().unwrap();
    let options = store::Options { readers: 2, busy_timeout: Duration::from_secs(5) };
    let store = Store::open_sqlite(&dir.path().join("t.db"), options).await.unwrap();
    let clock = Arc::new(ManualClock::new(BUILD_DATE.plus(Duration::from_secs(1_000_000))));
    let device_id = DeviceId::new("s1").unwrap();
    let mut tx = store.write().await.unwrap();
    let empresa =
        store::empresas::Nueva { ruc: "20123456789", razon_social: "Uno", email: None, telefono: None };
    let id_empresa = store::empresas::create(&mut tx, empresa, BUILD_DATE).await.unwrap();
    let nuevo = sensores::Nuevo {
        id_empresa,
        device_id: &device_id,
        nombre: "s1",
        tipo: "t",
        id_cultivo: None,
        intervalo_lectura: 300,
        ubicacion_sensor: None,
        coordenadas_lat: None,
        coordenadas_lng: None,
        credencial: &[0; 32],
    };
    let id_sensor = sensores::create(&mut tx, &nuevo, BUILD_DATE).await.unwrap();
    tx.commit().await.unwrap();
    let ajustes = Ajustes { cola: 100, lote: 50, rechazos_por_sensor: 10 };
    let drena = CancellationToken::new();
    let (ingest, escritor) = Ingest::start(
        store.clone(),
        (Hub::default(), Rutas::default()),
        clock.clone(),
        ajustes,
        drena.clone(),
    )
    .await
    .unwrap();
    let sensor = SensorRef { id_sensor, id_empresa, device_id };
    Banco { ingest, store, clock, sensor, drena, escritor: tokio::spawn(escritor), _dir: dir }
}

impl Banco {
    fn mensaje(&self, temperatura: f64, ts: Option<Timestamp>) -> Mensaje {
        use crate::domain::Clock as _;
        let mut valores = Valores::new();
        valores.set(Variable::TEMPERATURA, temperatura);
        let lecturas = vec![Lectura { ts, valores }];
        let (sensor, recibido) = (self.sensor.clone(), self.clock.now());
        Mensaje {
            sensor,
            lecturas,
            rechazos: Vec::new(),
            recibido,
            dup: false,
            si_esperan: false,
            al_aceptar: Vec::new(),
            por_decir: None,
        }
    }

    async fn manda(&self, mensaje: Mensaje) -> Resultado {
        self.ingest.submit(mensaje).await.unwrap().await.unwrap()
    }

    async fn guardadas(&self) -> usize {
        let mut tx = self.store.read().await.unwrap();
        let orden = store::lecturas::Orden::Ascendente;
        let id = self.sensor.id_sensor;
        let filas =
            store::lecturas::page(&mut tx, id, Timestamp::MIN, Timestamp::MAX, orden, 10_000).await.unwrap();
        filas.len()
    }

    async fn alertas(&self, estado: EstadoAlerta) -> Vec<crate::domain::Alerta> {
        let alcance = sensores::Alcance { id_empresa: self.sensor.id_empresa, id_trabajador: None };
        let filtro = store::alertas::Filtro { estado: Some(estado), ..store::alertas::Filtro::default() };
        let mut tx = self.store.read().await.unwrap();
        store::alertas::list(&mut tx, alcance, &filtro, &store::Hoja::primeras(100)).await.unwrap()
    }
}

#[tokio::test]
async fn readings_without_a_timestamp_are_unique_and_a_redelivery_counts_once() {
    let b = banco().await;
    // The clock stands: all arrive in one microsecond.
    for n in 0..5 {
        assert_eq!(b.manda(b.mensaje(20.0 + f64::from(n), None)).await.aceptadas, 1);
    }
    assert_eq!(b.guardadas().await, 5);
    b.clock.advance(Duration::from_secs(100));
    let otra_vez = Mensaje { dup: true, ..b.mensaje(22.0, None) };
    assert_eq!(b.manda(otra_vez.clone()).await.duplicadas, 1);
    assert_eq!(b.guardadas().await, 5);
    // After two minutes it is a reading of its own.
    b.clock.advance(Duration::from_secs(100));
    let tarde = Mensaje { recibido: crate::domain::Clock::now(&*b.clock), ..otra_vez };
    assert_eq!(b.manda(tarde).await.aceptadas, 1);
    assert_eq!(b.guardadas().await, 6);
}

#[tokio::test]
async fn a_row_that_the_database_refuses_does_not_hold_up_the_rest() {
    let b = banco().await;
    let nadie = SensorRef { id_sensor: 999, ..b.sensor.clone() };
    let mut respuestas = Vec::new();
    for n in 0..20 {
        let mut mensaje = b.mensaje(20.0 + f64::from(n) / 10.0, None);
        if n == 7 {
            mensaje.sensor = nadie.clone();
        }
        respuestas.push(b.ingest.submit(mensaje).await.unwrap());
    }
    for (n, respuesta) in respuestas.into_iter().enumerate() {
        let resultado = respuesta.await.unwrap();
        if n == 7 {
            assert!(resultado.rechazado());
            assert_eq!(resultado.rechazos[0].motivo, Motivo::Almacen);
        } else {
            assert_eq!(resultado.aceptadas, 1, "message {n}");
        }
    }
    assert_eq!(b.guardadas().await, 19);
}

#[tokio::test]
async fn an_old_excursion_is_history_and_does_not_move_the_newest() {
    use crate::domain::Clock as _;
    let b = banco().await;
    let ahora = b.clock.now();
    b.manda(b.mensaje(20.0, Some(ahora))).await;
    b.manda(b.mensaje(50.0, Some(ahora.minus(Duration::from_secs(600))))).await;
    assert!(b.alertas(EstadoAlerta::Pendiente).await.is_empty());
    let cerradas = b.alertas(EstadoAlerta::Resuelta).await;
    assert!(cerradas.len() == 1 && cerradas[0].historica, "{cerradas:?}");
    let mut tx = b.store.read().await.unwrap();
    let ultima = store::lecturas::latest_of(&mut tx, b.sensor.id_sensor).await.unwrap().unwrap();
    assert_eq!(ultima.ts, ahora);
}

#[tokio::test]
async fn nothing_is_answered_while_the_clock_is_wrong() {
    let b = banco().await;
    let buena = crate::domain::Clock::now(&*b.clock);
    b.clock.set(Timestamp::MIN);
    let respuesta = b.ingest.submit(b.mensaje(20.0, Some(buena))).await.unwrap();
    let mut respuesta = std::pin::pin!(respuesta);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut respuesta).await.is_err());
    assert!(matches!(b.ingest.salud(), Salud::RelojIncorrecto(_)));
    b.clock.set(buena);
    assert_eq!(respuesta.await.unwrap().aceptadas, 1);
    assert_eq!(b.ingest.salud(), Salud::Listo);
}

#[tokio::test]
async fn what_was_taken_is_committed_before_the_writer_ends_and_refusals_are_trimmed() {
    let b = banco().await;
    let mut respuestas = Vec::new();
    for n in 0..30 {
        let mut mensaje = b.mensaje(20.0 + f64::from(n) / 10.0, None);
        let rechazo =
            crate::domain::Rechazo::new(Motivo::FueraDeRango, Some("ph_suelo"), None, &n.to_string());
        mensaje.rechazos.push(rechazo);
        respuestas.push(b.ingest.submit(mensaje).await.unwrap());
    }
    b.drena.cancel();
    for respuesta in respuestas {
        assert_eq!(respuesta.await.unwrap().aceptadas, 1);
    }
    let cerrado = b.mensaje(1.0, None);
    assert!(b.ingest.submit(cerrado).await.is_err() || b.escritor.is_finished());
    assert_eq!(b.guardadas().await, 30);
    let mut tx = b.store.read().await.unwrap();
    let rechazos =
        store::rechazos::list(&mut tx, b.sensor.id_sensor, &store::Hoja::primeras(100)).await.unwrap();
    let newest: Vec<String> = (20..30).rev().map(|n| n.to_string()).collect();
    assert_eq!(rechazos.iter().map(|r| r.contenido.clone()).collect::<Vec<_>>(), newest);
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_its_place_taken_and_readings_theirs() {
    let b = banco().await;
    // A writer that never comes to anything.
    let (ingest, escritor) = Ingest::start(
        b.store.clone(),
        (Hub::default(), Rutas::default()),
        b.clock.clone(),
        Ajustes { cola: 4, lote: 4, rechazos_por_sensor: 1 },
        CancellationToken::new(),
    )
    .await
    .unwrap();
    for _ in 0..1_100 {
        let _ = tokio::time::timeout(Duration::from_micros(10), ingest.olvidar_sensor(1)).await;
    }
    let taken: Vec<_> = (0..4).map(|n| ingest.try_submit(b.mensaje(f64::from(n), None)).is_ok()).collect();
    assert_eq!(taken, [true; 4], "commands have no part of the readings' room");
    drop(escritor);
}

#[tokio::test]
async fn the_store_is_asked_once_in_a_batch_for_what_a_sensor_sends_again() {
    use crate::domain::Clock as _;
    let b = banco().await;
    let ahora = b.clock.now();
    b.manda(b.mensaje(20.0, Some(ahora))).await;
    let de = |temperatura| b.mensaje(temperatura, None).lecturas.remove(0).valores;
    let id = b.sensor.id_sensor;
    let mut reenvios = Reenvios::default();
    let mut tx = b.store.read().await.unwrap();
    let guardada = Some(Ya::Guardada(ahora));
    assert_eq!(reenvios.busca(&mut tx, id, &de(20.0), ahora).await.unwrap(), guardada);
    assert_eq!(reenvios.busca(&mut tx, id, &de(21.0), ahora).await.unwrap(), None);
    drop(tx);
    // What came in meanwhile would be found by whoever asked again.
    b.manda(b.mensaje(21.0, Some(ahora.next()))).await;
    let mut tx = b.store.read().await.unwrap();
    assert_eq!(reenvios.busca(&mut tx, id, &de(21.0), ahora).await.unwrap(), None, "asked once");
    assert_eq!(reenvios.busca(&mut tx, id, &de(20.0), ahora).await.unwrap(), guardada);
    let tarde = ahora.plus(Duration::from_secs(121));
    assert_eq!(reenvios.busca(&mut tx, id, &de(20.0), tarde).await.unwrap(), None, "two minutes later");
    // One that is in the batch is there, and not in the store.
    reenvios.recuerda(id, &de(22.0), tarde);
    assert_eq!(reenvios.busca(&mut tx, id, &de(22.0), tarde).await.unwrap(), Some(Ya::EnLote(tarde)));
    assert_eq!(reenvios.busca(&mut tx, id + 1, &de(22.0), tarde).await.unwrap(), None, "another sensor");
}

#[tokio::test]
async fn an_alert_that_somebody_else_opened_costs_no_reading() {
    use crate::domain::Clock as _;
    let b = banco().await;
    let ahora = b.clock.now();
    b.manda(b.mensaje(20.0, Some(ahora))).await;
    // Behind the writer's back, as by SQL.
    let umbral = crate::alertas::Umbrales::default().de(&Variable::TEMPERATURA).unwrap();
    let severidad = crate::alertas::severidad(umbral, 90.0).unwrap();
    let suya = crate::alertas::nueva(&b.sensor, &Variable::TEMPERATURA, umbral, 90.0, ahora, severidad);
    let mut tx = b.store.write().await.unwrap();
    let id_alerta = store::alertas::create(&mut tx, &suya, 0).await.unwrap();
    tx.commit().await.unwrap();
    let mut respuestas = Vec::new();
    for n in 1..=5_u8 {
        let ts = ahora.plus(Duration::from_secs(n.into()));
        let fuera = b.mensaje(90.0 + f64::from(n), Some(ts));
        respuestas.push(b.ingest.submit(fuera).await.unwrap());
    }
    for respuesta in respuestas {
        let resultado = respuesta.await.unwrap();
        assert_eq!((resultado.aceptadas, resultado.rechazos.len()), (1, 0), "{resultado:?}");
    }
    assert_eq!(b.guardadas().await, 6);
    let abiertas = b.alertas(EstadoAlerta::Pendiente).await;
    assert_eq!(abiertas.iter().map(|a| a.id_alerta).collect::<Vec<_>>(), [id_alerta]);
}

#[tokio::test]
async fn alerts_of_one_batch_keep_to_their_variables_from_the_first_reading_to_the_last() {
    use crate::domain::Clock as _;
    let b = banco().await;
    let ahora = b.clock.now();
    let variables = [Variable::TEMPERATURA, Variable::HUMEDAD_AIRE, Variable::PH_SUELO];
    // All outside, all outside by more (they are raised), and all inside again until they close; a second time in one batch.
    let mut n = 0;
    let mut lectura = |valores: [f64; 3]| {
        n += 1;
        let mut mensaje = b.mensaje(valores[0], Some(ahora.plus(Duration::from_secs(n))));
        for (variable, valor) in variables.iter().zip(valores) {
            mensaje.lecturas[0].valores.set(variable.clone(), valor);
        }
        mensaje
    };
    let (fuera, mas, dentro) = ([36.0, 91.0, 7.6], [60.0, 100.0, 14.0], [20.0, 60.0, 6.5]);
    for valores in [fuera, mas, dentro, dentro, dentro] {
        b.manda(lectura(valores)).await;
    }
    let mut respuestas = Vec::new();
    for valores in [fuera, dentro, dentro, dentro, mas] {
        respuestas.push(b.ingest.submit(lectura(valores)).await.unwrap());
    }
    for respuesta in respuestas {
        assert_eq!(respuesta.await.unwrap().aceptadas, 1);
    }
    for (estado, each) in [(EstadoAlerta::Resuelta, 2), (EstadoAlerta::Pendiente, 1)] {
        let alertas = b.alertas(estado).await;
        assert_eq!(alertas.len(), 3 * each, "{alertas:?}");
        for (i, variable) in variables.iter().enumerate() {
            let suyas: Vec<_> = alertas.iter().filter(|a| a.tipo_alerta == variable.as_str()).collect();
            assert_eq!(suyas.len(), each, "{alertas:?}");
            for alerta in suyas {
                let valor = alerta.valor_actual.unwrap();
                assert!([fuera[i], mas[i], dentro[i]].iter().any(|v| (v - valor).abs() < 1e-9), "{alerta:?}");
                assert!(alerta.titulo.to_lowercase().contains(&variable.as_str()[..2]), "{alerta:?}");
            }
        }
    }
    assert_eq!(b.guardadas().await, 10);
}
