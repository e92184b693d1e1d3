//! What a batch of changes comes to.

use std::time::Duration;

use super::{Cambio, Suscripcion, apply, sessions, subscriptions};
use crate::store::{Options, Store};

fn suscripcion(id_sesion: i64, filtro: &str, qos: i64) -> Suscripcion {
    Suscripcion {
        id_sesion,
        filtro: filtro.to_owned(),
        qos,
        no_local: true,
        rap: false,
        retain_handling: 2,
        identificador: Some(7),
    }
}

#[tokio::test]
async fn the_last_word_of_a_batch_on_a_filter_counts_and_a_session_that_is_over_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { readers: 1, busy_timeout: Duration::from_secs(5) };
    let store = Store::open_sqlite(&dir.path().join("t.db"), options).await.unwrap();
    let abre = |id_sesion: i64| Cambio::Abre {
        id_sesion,
        principal: "a:".to_owned(),
        client_id: id_sesion.to_string(),
        expiry: 60,
        conexion: 1,
    };
    let pide = |id_sesion, filtro, qos| Cambio::Suscribe(suscripcion(id_sesion, filtro, qos));
    let deja = |id_sesion, filtro: &str| Cambio::Desuscribe { id_sesion, filtro: filtro.to_owned() };
    let primero = [abre(1), abre(2), pide(1, "a", 0), pide(1, "b", 0), pide(2, "a", 1), pide(3, "a", 1)];
    let segundo = [
        deja(1, "a"),
        pide(1, "a", 2),
        pide(1, "b", 1),
        deja(1, "b"),
        deja(1, "c"),
        pide(1, "d", 1),
        Cambio::Termina(2),
        pide(2, "d", 1),
    ];
    let mut tx = store.write().await.unwrap();
    apply(&mut tx, &primero).await.unwrap();
    assert_eq!(subscriptions(&mut tx).await.unwrap().len(), 3);
    apply(&mut tx, &segundo).await.unwrap();
    let mut quedan = subscriptions(&mut tx).await.unwrap();
    quedan.sort_by(|a, b| a.filtro.cmp(&b.filtro));
    assert_eq!(quedan, [suscripcion(1, "a", 2), suscripcion(1, "d", 1)]);
    assert_eq!(sessions(&mut tx).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
}
