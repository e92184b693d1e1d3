//! What is kept is what the database says, whatever becomes of a commit.

use futures_util::poll;

use super::super::{Options, Tx, identidades, sesiones};
use super::*;
use crate::domain::{BUILD_DATE, Rol};

async fn store() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { readers: 2, busy_timeout: Duration::from_secs(5) };
    let store = Store::open_sqlite(&dir.path().join("t.db"), options).await.unwrap();
    let mut tx = store.write().await.unwrap();
    identidades::create(&mut tx, "u", "u@x.pe", "", true, BUILD_DATE).await.unwrap();
    let nuevo = trabajadores::Nuevo {
        user_id: "u",
        id_empresa: None,
        nombre: "Ana",
        apellido: "",
        dni: None,
        email: "u@x.pe",
        telefono: None,
        rol: Rol::Worker,
    };
    trabajadores::create(&mut tx, &nuevo, BUILD_DATE).await.unwrap();
    let luego = BUILD_DATE.plus(Duration::from_secs(60));
    sesiones::create(&mut tx, "s", "u", "", false, BUILD_DATE, luego).await.unwrap();
    tx.commit().await.unwrap();
    (store, dir)
}

async fn renueva(store: &Store) -> Tx {
    let mut tx = store.write().await.unwrap();
    identidades::renew(&mut tx, "u").await.unwrap();
    tx
}

async fn generacion(store: &Store) -> i64 {
    store.presente("u", "s").await.unwrap().unwrap().vigente.unwrap().generacion
}

/// What the database says now.
async fn escrita(store: &Store) -> i64 {
    let mut tx = store.read().await.unwrap();
    identidades::active(&mut tx, "u").await.unwrap().unwrap().generacion
}

fn cuantos(store: &Store) -> usize {
    store.presentes.dentro().guardados.len()
}

#[tokio::test]
async fn what_a_writer_changed_is_seen_by_whoever_asks_next_and_that_of_readings_changes_nothing() {
    let (store, _dir) = store().await;
    let desde = generacion(&store).await;
    for n in 1..20 {
        renueva(&store).await.commit().await.unwrap();
        assert_eq!(cuantos(&store), 0);
        for _ in 0..3 {
            assert_eq!(generacion(&store).await, desde + n);
        }
        assert_eq!(cuantos(&store), 1);
        // Not a change, nor one that came to nothing.
        store.write_first().await.unwrap().commit().await.unwrap();
        drop(renueva(&store).await);
        assert_eq!(cuantos(&store), 1);
    }
}

#[tokio::test]
async fn a_repeated_request_asks_the_database_nothing() {
    let (store, _dir) = store().await;
    assert_eq!(generacion(&store).await, 0);
    assert!(store.presente("u", "another").await.unwrap().is_some_and(|p| !p.abierta));
    store.close().await;
    assert_eq!(generacion(&store).await, 0);
    assert!(store.presente("v", "s").await.is_err(), "whom nobody has asked for is not known");
}

#[tokio::test]
async fn what_was_read_before_a_commit_and_kept_after_it_is_not_believed() {
    let (store, _dir) = store().await;
    let vez = match store.presentes.busca("u s", Instant::now()) {
        Hallado::Falta(vez) => vez,
        Hallado::Guardado(_) => panic!("nothing is kept yet"),
    };
    let mut tx = store.read().await.unwrap();
    let leido = trabajadores::present(&mut tx, "u", "s").await.unwrap().unwrap();
    tx.commit().await.unwrap();
    renueva(&store).await.commit().await.unwrap();
    store.presentes.guarda("u s".to_owned(), leido, vez, Instant::now());
    assert_eq!(generacion(&store).await, 1);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_leaves_nothing_old_behind() {
    let (store, _dir) = store().await;
    for _ in 0..50 {
        generacion(&store).await;
        let mut commit = Box::pin(renueva(&store).await.commit());
        // On its way, or through; its caller has gone.
        let _ = poll!(&mut commit);
        drop(commit);
        // Whoever asks meanwhile hears what is written then.
        for _ in 0..3 {
            let (antes, dicha) = (escrita(&store).await, generacion(&store).await);
            assert!((antes..=escrita(&store).await).contains(&dicha));
        }
        // The next writer comes after it.
        drop(store.write().await.unwrap());
        assert_eq!(generacion(&store).await, escrita(&store).await);
        assert_eq!(generacion(&store).await, escrita(&store).await, "kept");
    }
}

#[test]
fn a_commit_shuts_it_until_it_has_answered_or_another_has_begun() {
    let (presentes, ahora) = (Presentes::default(), Instant::now());
    let abierto = || matches!(presentes.busca("x", ahora), Hallado::Falta(Some(_)));
    assert!(abierto());
    let uno = presentes.cierra();
    assert!(!abierto());
    presentes.abre(uno);
    assert!(abierto());
    // Nobody hears of this one.
    let uno = presentes.cierra();
    presentes.empieza_otra();
    assert!(abierto());
    let otro = presentes.cierra();
    // Late, of the one before.
    presentes.abre(uno);
    assert!(!abierto());
    presentes.abre(otro);
    assert!(abierto());
}

#[tokio::test]
async fn what_is_kept_is_bounded_in_number_and_in_time() {
    let (store, _dir) = store().await;
    let presente = store.presente("u", "s").await.unwrap().unwrap();
    let (presentes, ahora) = (Presentes::default(), Instant::now());
    for n in 0..2 * MAX + 10 {
        presentes.guarda(n.to_string(), presente, Some(0), ahora);
        assert!(presentes.dentro().guardados.len() <= MAX);
    }
    let ultimo = (2 * MAX + 9).to_string();
    let guardado = |cuando| matches!(presentes.busca(&ultimo, cuando), Hallado::Guardado(_));
    assert!(guardado(ahora) && guardado(ahora + VALE.checked_sub(Duration::from_millis(1)).unwrap()));
    assert!(!guardado(ahora + VALE), "of what another process wrote nothing is heard");
}
