//! A CONNECT that is given up at any moment: its client hangs up, its time is over, it is not let in after
//! all. Whatever of it was done by then, it is as if nobody had come, in memory and in the store.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bench::{Bench, PATIENCE, connect, expiry};
use super::packets::{Heard, Property, Said, Value};
use crate::domain::{BUILD_DATE, DeviceId, Timestamp};
use crate::identity::Revocado;
use crate::identity::dispositivo;
use crate::mqtt::admission;
use crate::mqtt::broker::Compartido;
use crate::mqtt::handshake::Origen;
use crate::mqtt::session::Sesion;
use crate::store::mqtt::{Cambio, Sesion as Row, Testamento};
use crate::store::{self, Store, sensores};

const TOKEN: &[u8] = b"a token";

/// A device that may sign in: whoever is let in by the store can be kept waiting by it.
async fn device(store: &Store) {
    let device_id = DeviceId::new("s1").unwrap();
    let empresa =
        store::empresas::Nueva { ruc: "20123456789", razon_social: "Uno", email: None, telefono: None };
    let mut tx = store.write().await.unwrap();
    let id_empresa = store::empresas::create(&mut tx, empresa, BUILD_DATE).await.unwrap();
    let device = sensores::Nuevo {
        id_empresa,
        device_id: &device_id,
        nombre: "s1",
        tipo: "t",
        id_cultivo: None,
        intervalo_lectura: 300,
        ubicacion_sensor: None,
        coordenadas_lat: None,
        coordenadas_lng: None,
        credencial: &dispositivo::hash(TOKEN),
    };
    sensores::create(&mut tx, &device, BUILD_DATE).await.unwrap();
    tx.commit().await.unwrap();
}

/// A CONNECT of the device with a will that waits.
fn comes(clean: bool, properties: Vec<Property>, will: &str) -> Said {
    let mut said = connect(true, "c", clean, properties);
    let Said::Connect { will: theirs, user, password, .. } = &mut said else { unreachable!() };
    let delay = vec![(0x18, Value::Number(300))];
    *theirs = Some((delay, b"sensores/s1/respuestas".to_vec(), will.as_bytes().to_vec()));
    (*user, *password) = (Some(b"s1".to_vec()), Some(TOKEN.to_vec()));
    said
}

/// When a session ends, and when its will is sent.
type Waits = (Option<Timestamp>, Option<(Timestamp, Vec<u8>)>);

/// What there is of the one session, in memory and in the store.
#[derive(Debug, PartialEq)]
struct Found {
    session: Option<Waits>,
    rows: Vec<(i64, Option<i64>)>,
    wills: Vec<Testamento>,
}

fn session(b: &Compartido) -> Option<Arc<Sesion>> {
    b.sessions.todas().into_iter().find(|s| s.clave.client_id == "c")
}

async fn found(b: &Compartido) -> Found {
    let session = session(b).map(|s| {
        let vida = s.vida();
        assert!(!vida.conectada, "nobody is connected");
        let will = vida.testamento.as_ref().map(|(when, will)| (*when, will.mensaje.payload.to_vec()));
        (vida.expira, will)
    });
    let mut tx = b.parts.store.read().await.unwrap();
    let rows = store::mqtt::sessions(&mut tx).await.unwrap();
    let rows = rows.into_iter().map(|Row { id_sesion, expira, .. }| (id_sesion, expira)).collect();
    Found { session, rows, wills: store::mqtt::wills(&mut tx).await.unwrap() }
}

/// Lets `said` come, gives it up when it has been polled so often (with `woken`: once what it waits for is there),
/// and lets the writer do what it was given. `false` when it was let in before that.
async fn given_up(b: &Arc<Compartido>, said: &Said, polls: usize, woken: bool) -> bool {
    let origin = Origen {
        via: "tcp",
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        local: true,
        plano: true,
        certificado: None,
        hasta: Instant::now() + PATIENCE,
    };
    let (bytes, silent) = (said.bytes(true), b.puerta.callado());
    let mut read = &bytes[..];
    let let_in = {
        let mut entering = pin!(admission::entra(b, &mut read, &origin, silent));
        let mut polled = 0;
        poll_fn(|cx| {
            if polled == polls {
                return Poll::Ready(false);
            }
            polled += 1;
            // Somebody else is shut out all the time: whoever comes is looked at once more.
            b.parts.directorio.revoca(Revocado::Dispositivos(Arc::default()));
            match entering.as_mut().poll(cx) {
                // Not served yet: given up as well.
                Poll::Ready(entered) => Poll::Ready(entered.is_ok() || panic!("it is not let in")),
                Poll::Pending if polled == polls && !woken => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    b.guarda(b.sessions.toma_anotados()).await;
    assert!(b.guarda(vec![Cambio::Olvida("nothing".to_owned())]).await);
    !let_in
}

/// Comes with a will, and is lost.
async fn lost(bench: &Bench) {
    let mut owner = bench.client(true, 4_096);
    owner.say(&comes(false, vec![expiry(600)], "first")).await;
    assert!(matches!(owner.hear().await, Ok(Some(Heard::Connack { code: 0, .. }))));
    owner.hang_up().await.unwrap();
}

#[tokio::test]
async fn a_connect_that_is_given_up_at_any_moment_leaves_a_session_and_its_will_as_they_were() {
    let bench = Bench::new().await;
    let b = &bench.broker.0;
    device(&b.parts.store).await;
    lost(&bench).await;
    let before = found(b).await;
    assert!(before.session.as_ref().is_some_and(|(ends, will)| ends.is_some() && will.is_some()));
    assert_eq!((before.rows.len(), before.wills.len()), (1, 1));
    let mut most = 0;
    // How often one is polled is the machine's to say.
    for woken in [false, true].repeat(4) {
        // Its session would be over with it.
        let said = comes(false, Vec::new(), "second");
        let mut polls = 1;
        while given_up(b, &said, polls, woken).await {
            assert_eq!(found(b).await, before, "after {polls} polls, woken: {woken}");
            polls += 1;
        }
        assert_eq!(found(b).await, before, "let in and not served");
        most = most.max(polls);
    }
    assert!(most > 2, "it waits for its sign-in and for its commit");
    bench.end().await;
}

#[tokio::test]
async fn a_new_session_whose_connect_is_given_up_at_any_moment_is_over() {
    let bench = Bench::new().await;
    let b = &bench.broker.0;
    device(&b.parts.store).await;
    let mut polls = 1;
    while given_up(b, &comes(false, vec![expiry(600)], "never"), polls, false).await {
        if let Some(session) = session(b) {
            let vida = session.vida();
            assert!(!vida.conectada && vida.acabada(b.parts.clock.now()) && vida.testamento.is_none());
        }
        assert_eq!(found(b).await.wills, [], "after {polls} polls");
        polls += 1;
    }
    gone(b).await;
    bench.end().await;
}

/// Nothing is left, once what is over has been swept away.
async fn gone(b: &Compartido) {
    let began = Instant::now();
    loop {
        b.pasa_el_tiempo().await;
        let left = found(b).await;
        if left.session.is_none() && left.rows.is_empty() && left.wills.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{left:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_clean_start_that_is_given_up_at_any_moment_ends_the_session_before_it_or_does_not() {
    let bench = Bench::new().await;
    let b = &bench.broker.0;
    device(&b.parts.store).await;
    let mut most = 0;
    for woken in [false, true].repeat(4) {
        let mut polls = 1;
        loop {
            lost(&bench).await;
            let before = found(b).await;
            let over = !given_up(b, &comes(true, Vec::new(), "never"), polls, woken).await;
            if found(b).await != before {
                gone(b).await;
            }
            if over {
                break;
            }
            polls += 1;
        }
        most = most.max(polls);
    }
    assert!(most > 2);
    bench.end().await;
}
