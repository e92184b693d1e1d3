//! The provider against a store of its own and a clock that is moved by hand.

use super::*;
use crate::domain::{BUILD_DATE, ManualClock, Rol};
use crate::identity::password::Claves;
use crate::store;
use crate::store::auditoria::{Autor, Origen};
use crate::store::codigos::Para;

struct Banco {
    cuentas: Cuentas,
    clock: Arc<ManualClock>,
    store: Store,
    _dir: tempfile::TempDir,
}

async fn banco(registro: Registro) -> Banco {
    let dir = tempfile::tempdir().unwrap();
    let options = store::Options { readers: 2, busy_timeout: Duration::from_secs(5) };
    let store = Store::open_sqlite(&dir.path().join("t.db"), options).await.unwrap();
    let clock = Arc::new(ManualClock::new(BUILD_DATE.plus(Duration::from_secs(1_000))));
    let ajustes = Ajustes {
        registro,
        access: Duration::from_hours(1),
        refresh: Duration::from_hours(24),
        argon2_cola: 16,
        confirmar: false,
        por_cuenta: 0,
    };
    let secreto = b"0123456789abcdef0123456789abcdef";
    let cuentas = Cuentas::new(store.clone(), clock.clone(), Arc::default(), secreto, ajustes).unwrap();
    Banco { cuentas, clock, store, _dir: dir }
}

fn empresa(email: &str, ruc: &str, dni: &str) -> NuevaEmpresa {
    NuevaEmpresa {
        email: email.into(),
        password: "una clave larga".into(),
        nombre: "Ana".into(),
        apellido: "Paz".into(),
        dni: Some(dni.into()),
        telefono: None,
        ruc: ruc.into(),
        razon_social: "Fundo".into(),
        empresa_email: None,
    }
}

fn autor(user_id: &str) -> Autor {
    Autor { user_id: user_id.into(), id_empresa: None, origen: Origen::consola(), momento: BUILD_DATE }
}

fn trabajador(email: &str) -> NuevoTrabajador {
    NuevoTrabajador {
        email: email.into(),
        password: "una clave larga".into(),
        nombre: "Luz".into(),
        apellido: "Rey".into(),
        dni: Some("10000009".into()),
        telefono: None,
        codigo_invitacion: None,
    }
}

#[tokio::test]
async fn registration_is_all_or_nothing() {
    let b = banco(Registro::Open).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    for (email, ruc, dni, campo) in [
        ("A@x.pe ", "20000000002", "10000002", "email"),
        ("b@x.pe", "20000000001", "10000002", "ruc"),
        ("b@x.pe", "20000000002", "10000001", "dni"),
    ] {
        let e = b.cuentas.registrar_empresa(empresa(email, ruc, dni), Origen::consola()).await.unwrap_err();
        assert!(matches!(e, Error::EnUso(c) if c == campo), "{e:?}");
    }
    // What failed left nothing: the same e-mail, RUC and DNI are free.
    b.cuentas
        .registrar_empresa(empresa("b@x.pe", "20000000002", "10000002"), Origen::consola())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_first_empresa_only_even_in_a_race() {
    let b = banco(Registro::First).await;
    let todas = (1..6_u8).map(|n| {
        let nueva = empresa(&format!("{n}@x.pe"), &format!("2000000000{n}"), &format!("1000000{n}"));
        b.cuentas.registrar_empresa(nueva, Origen::consola())
    });
    let hechas = futures_util::future::join_all(todas).await;
    assert_eq!(hechas.iter().filter(|r| r.is_ok()).count(), 1, "{hechas:?}");
    let e = hechas.into_iter().find_map(Result::err).unwrap();
    assert!(matches!(e, Error::RegistroCerrado));
}

#[tokio::test]
async fn sign_in_says_the_same_for_an_unknown_email_and_a_wrong_password() {
    let b = banco(Registro::Open).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let sesion = b.cuentas.entrar("A@X.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    let (usuario, _) = b.cuentas.usuario(&sesion.access_token).await.unwrap();
    assert_eq!(usuario.rol, Rol::AdminEmpresa);
    for (email, clave) in [("a@x.pe", "otra clave larga"), ("z@x.pe", "una clave larga"), ("", "")] {
        assert!(matches!(
            b.cuentas.entrar(email, clave, None, Origen::consola()).await,
            Err(Error::Credenciales)
        ));
    }
}

#[tokio::test]
async fn a_refresh_token_is_good_once_or_twice_within_ten_seconds() {
    let b = banco(Registro::Open).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let uno = b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    b.clock.advance(Duration::from_secs(100));
    let dos = b.cuentas.refrescar(&uno.refresh_token).await.unwrap();
    b.clock.advance(Duration::from_secs(9));
    let otra_vez = b.cuentas.refrescar(&uno.refresh_token).await.unwrap();
    assert_eq!(dos.refresh_token, otra_vez.refresh_token);
    assert_eq!(dos.access_token, otra_vez.access_token);
    b.clock.advance(Duration::from_secs(5));
    assert!(matches!(b.cuentas.refrescar(&uno.refresh_token).await, Err(Error::TokenInvalido)));
    // Used twice: stolen. The thief's successor is worth nothing either.
    assert!(matches!(b.cuentas.refrescar(&dos.refresh_token).await, Err(Error::TokenInvalido)));
    for suya in [&uno, &dos] {
        assert!(matches!(b.cuentas.usuario(&suya.access_token).await, Err(Error::TokenInvalido)));
    }
}

#[tokio::test]
async fn a_sign_in_by_the_password_of_before_does_not_outlive_it() {
    let b = banco(Registro::Open).await;
    let nueva = empresa("a@x.pe", "20000000001", "10000001");
    b.cuentas.registrar_empresa(nueva, Origen::consola()).await.unwrap();
    let Provider::Interno(p) = &b.cuentas.0.provider else { panic!("accounts of our own") };
    // Its password was right, and another takes its place before anything is opened.
    let de_antes = b.cuentas.autentica(p, "a@x.pe", "una clave larga").await.unwrap();
    let cambio =
        Cambio { clave: Some("otra clave larga".into()), datos: None, datos_app: None, confirma: false };
    b.cuentas.identidad_cambia(&de_antes.user_id, cambio, None, Origen::consola()).await.unwrap();
    let abierta = b.cuentas.emite(p, &de_antes, None, Segundo::Despues, Origen::consola()).await;
    assert!(matches!(abierta, Err(Error::Credenciales)));
}

#[tokio::test]
async fn a_request_under_way_changes_nothing_once_its_sign_in_has_ended() {
    let b = banco(Registro::Open).await;
    let nueva = empresa("a@x.pe", "20000000001", "10000001");
    b.cuentas.registrar_empresa(nueva, Origen::consola()).await.unwrap();
    let robada = b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    let token = robada.access_token.as_str();
    // Each was let in, and before it writes the account has another password.
    let (quien, _) = b.cuentas.usuario(token).await.unwrap();
    let user_id = quien.user_id.as_str();
    let alta = b.cuentas.totp_empieza(user_id, "", None, Origen::consola()).await.unwrap();
    let cambia = |clave: &str, token| {
        let cambio = Cambio { clave: Some(clave.into()), datos: None, datos_app: None, confirma: false };
        b.cuentas.identidad_cambia(user_id, cambio, token, Origen::consola())
    };
    cambia("la de su propietaria", None).await.unwrap();
    assert!(matches!(cambia("la de quien la robo", Some(token)).await, Err(Error::TokenInvalido)));
    let confirmado = b.cuentas.totp_confirma(&quien, "000000", Origen::consola()).await;
    assert!(matches!(confirmado, Err(Error::TokenInvalido)));
    let mostrado = b.cuentas.totp_muestra(user_id, &alta.id_factor, "000000", token, Origen::consola()).await;
    assert!(matches!(mostrado, Err(Error::TokenInvalido)));
    b.cuentas.entrar("a@x.pe", "la de su propietaria", None, Origen::consola()).await.unwrap();
}

#[tokio::test]
async fn an_invented_code_waits_for_no_writer() {
    let b = banco(Registro::Open).await;
    let escribe = b.store.write().await.unwrap();
    let de = Origen::consola;
    let inventados = async {
        assert!(matches!(b.cuentas.confirma("x", de()).await, Err(Error::CodigoInvalido)));
        for para in [Para::Confirmar, Para::Recuperar] {
            let verificado = b.cuentas.identidad_verifica("x", para, de()).await;
            assert!(matches!(verificado, Err(Error::CodigoInvalido)));
        }
        let nueva = b.cuentas.restablece("x", "otra clave larga", de()).await;
        assert!(matches!(nueva, Err(Error::CodigoInvalido)));
    };
    // Far less than a writer is waited for.
    tokio::time::timeout(Duration::from_secs(3), inventados).await.unwrap();
    drop(escribe);
}

#[tokio::test]
async fn an_account_without_an_empresa_sees_nothing() {
    let b = banco(Registro::Open).await;
    let nuevo = trabajador("t@x.pe");
    b.cuentas.registrar_trabajador(nuevo.clone(), Origen::consola()).await.unwrap();
    let sesion = b.cuentas.entrar("t@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    let (usuario, _) = b.cuentas.usuario(&sesion.access_token).await.unwrap();
    assert_eq!(usuario.alcance().map(|a| a.id_empresa), None);
    let con_codigo = NuevoTrabajador { codigo_invitacion: Some("X".into()), email: "u@x.pe".into(), ..nuevo };
    assert!(matches!(
        b.cuentas.registrar_trabajador(con_codigo, Origen::consola()).await,
        Err(Error::InvitacionInvalida)
    ));
}

#[tokio::test]
async fn a_code_lets_one_person_in_for_seven_days() {
    let b = banco(Registro::First).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let con = |email: &str, dni: &str, codigo: &str| NuevoTrabajador {
        dni: Some(dni.into()),
        codigo_invitacion: Some(codigo.into()),
        ..trabajador(email)
    };
    let sin = b.cuentas.registrar_trabajador(trabajador("t@x.pe"), Origen::consola()).await;
    assert!(matches!(sin, Err(Error::InvitacionNecesaria)));
    let codigo = b.cuentas.invitar(1, Rol::Supervisor, &autor("u")).await.unwrap().codigo;
    // What fails for another reason leaves the code as good as before.
    let e = b
        .cuentas
        .registrar_trabajador(con("t@x.pe", "10000001", &codigo), Origen::consola())
        .await
        .unwrap_err();
    assert!(matches!(e, Error::EnUso("dni")), "{e:?}");
    let hecho =
        b.cuentas.registrar_trabajador(con("t@x.pe", "10000002", &codigo), Origen::consola()).await.unwrap();
    assert_eq!(hecho.rol, Rol::Supervisor);
    assert_eq!(b.cuentas.perfil(&hecho.user_id).await.unwrap().id_empresa, Some(1));
    let e = b
        .cuentas
        .registrar_trabajador(con("u@x.pe", "10000003", &codigo), Origen::consola())
        .await
        .unwrap_err();
    assert!(matches!(e, Error::InvitacionInvalida), "{e:?}");
    let codigo = b.cuentas.invitar(1, Rol::Worker, &autor("u")).await.unwrap().codigo;
    b.clock.advance(Duration::from_hours(7 * 24));
    let e = b
        .cuentas
        .registrar_trabajador(con("u@x.pe", "10000003", &codigo), Origen::consola())
        .await
        .unwrap_err();
    assert!(matches!(e, Error::InvitacionInvalida), "{e:?}");
}

#[tokio::test]
async fn a_code_is_used_once_even_in_a_race() {
    let b = banco(Registro::Open).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let mut quienes = Vec::new();
    for n in 0..4 {
        let nuevo = NuevoTrabajador { dni: None, ..trabajador(&format!("{n}@x.pe")) };
        b.cuentas.registrar_trabajador(nuevo, Origen::consola()).await.unwrap();
        let sesion =
            b.cuentas.entrar(&format!("{n}@x.pe"), "una clave larga", None, Origen::consola()).await.unwrap();
        quienes.push(b.cuentas.usuario(&sesion.access_token).await.unwrap().0);
    }
    let codigo = b.cuentas.invitar(1, Rol::Worker, &autor("u")).await.unwrap().codigo;
    let hechas = futures_util::future::join_all(
        quienes.iter().map(|q| b.cuentas.unirse(q, &codigo, Origen::consola())),
    )
    .await;
    assert_eq!(hechas.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(hechas.iter().all(|r| matches!(r, Ok(_) | Err(Error::InvitacionInvalida))));
    let quien = hechas.into_iter().find_map(Result::ok).unwrap();
    let ya = Usuario {
        user_id: quien.user_id,
        id_trabajador: quien.id_trabajador,
        id_empresa: quien.id_empresa,
        rol: quien.rol,
        sesion: None,
    };
    let otro = b.cuentas.invitar(1, Rol::Worker, &autor("u")).await.unwrap().codigo;
    assert!(matches!(b.cuentas.unirse(&ya, &otro, Origen::consola()).await, Err(Error::YaEnEmpresa)));
}

/// Deactivates or activates everybody.
async fn activa(b: &Banco, activo: bool) {
    let mut tx = b.store.write().await.unwrap();
    trabajadores::set_all_active(&mut tx, activo).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn nobody_registers_when_it_is_closed_but_the_command_line() {
    let b = banco(Registro::Closed).await;
    let nueva = || empresa("a@x.pe", "20000000001", "10000001");
    assert!(matches!(
        b.cuentas.registrar_empresa(nueva(), Origen::consola()).await,
        Err(Error::RegistroCerrado)
    ));
    let persona = trabajador("t@x.pe");
    assert!(matches!(
        b.cuentas.registrar_trabajador(persona, Origen::consola()).await,
        Err(Error::RegistroCerrado)
    ));
    let hecha = b.cuentas.create_admin(nueva()).await.unwrap();
    assert_eq!((hecha.email.as_str(), hecha.rol), ("a@x.pe", Rol::AdminEmpresa));
}

#[tokio::test]
async fn a_password_has_a_shortest_and_a_longest_length() {
    let b = banco(Registro::Open).await;
    for clave in ["nueve car".to_owned(), String::new(), "a".repeat(257), "ñ".repeat(129)] {
        let nueva = NuevaEmpresa { password: clave, ..empresa("a@x.pe", "20000000001", "10000001") };
        assert!(matches!(
            b.cuentas.registrar_empresa(nueva, Origen::consola()).await,
            Err(Error::ClaveDebil)
        ));
    }
    // Ten characters, whatever their bytes; and a longer one is never cut to the one that is right.
    let clave = "a".repeat(254);
    let nueva = NuevaEmpresa { password: clave.clone(), ..empresa("a@x.pe", "20000000001", "10000001") };
    b.cuentas.registrar_empresa(nueva, Origen::consola()).await.unwrap();
    b.cuentas.entrar("a@x.pe", &clave, None, Origen::consola()).await.unwrap();
    for otra in [format!("{clave}\u{1F600}x"), "a".repeat(257), "a".repeat(100_000)] {
        assert!(matches!(
            b.cuentas.entrar("a@x.pe", &otra, None, Origen::consola()).await,
            Err(Error::Credenciales)
        ));
    }
}

#[test]
fn secrets_are_not_in_debug() {
    let nuevo = NuevoTrabajador { codigo_invitacion: Some("CODIGO".into()), ..trabajador("t@x.pe") };
    let texto = format!("{:?} {nuevo:?}", empresa("a@x.pe", "20000000001", "10000001"));
    assert!(!texto.contains("clave larga") && !texto.contains("CODIGO"), "{texto}");
}

#[tokio::test]
async fn two_tabs_at_the_same_moment_get_the_same_answer() {
    let b = banco(Registro::Open).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let uno = b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    let todas = (0..8).map(|_| b.cuentas.refrescar(&uno.refresh_token));
    let hechas: Vec<_> =
        futures_util::future::join_all(todas).await.into_iter().map(Result::unwrap).collect();
    assert!(hechas.iter().all(|s| s.refresh_token == hechas[0].refresh_token));
    assert!(hechas.iter().all(|s| s.access_token == hechas[0].access_token));
}

#[tokio::test]
async fn a_refresh_token_ends_with_its_time_and_is_not_anybodys_text() {
    let b = banco(Registro::Open).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let uno = b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    for ajeno in ["", "x", &uno.access_token, &uno.refresh_token[1..]] {
        assert!(matches!(b.cuentas.refrescar(ajeno).await, Err(Error::TokenInvalido)));
    }
    b.clock.advance(Duration::from_hours(24));
    assert!(matches!(b.cuentas.refrescar(&uno.refresh_token).await, Err(Error::TokenCaducado)));
    assert!(matches!(b.cuentas.usuario(&uno.access_token).await, Err(Error::TokenCaducado)));
}

#[tokio::test]
async fn signing_out_ends_one_sign_in_or_all_and_nobody_elses() {
    let b = banco(Registro::Open).await;
    let a = b
        .cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let z = b
        .cuentas
        .registrar_empresa(empresa("z@x.pe", "20000000002", "10000002"), Origen::consola())
        .await
        .unwrap();
    let uno = b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    let dos = b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    b.cuentas.salir(Some(&uno.refresh_token), "", &autor(&z.user_id)).await.unwrap();
    let uno = b.cuentas.refrescar(&uno.refresh_token).await.unwrap();
    b.cuentas.salir(Some(&uno.refresh_token), "", &autor(&a.user_id)).await.unwrap();
    assert!(matches!(b.cuentas.refrescar(&uno.refresh_token).await, Err(Error::TokenInvalido)));
    let dos = b.cuentas.refrescar(&dos.refresh_token).await.unwrap();
    b.cuentas.salir(None, "", &autor(&a.user_id)).await.unwrap();
    assert!(matches!(b.cuentas.refrescar(&dos.refresh_token).await, Err(Error::TokenInvalido)));
}

#[tokio::test]
async fn a_deactivated_account_is_refused_everywhere_and_spends_no_token() {
    let b = banco(Registro::Open).await;
    b.cuentas
        .registrar_empresa(empresa("a@x.pe", "20000000001", "10000001"), Origen::consola())
        .await
        .unwrap();
    let uno = b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await.unwrap();
    activa(&b, false).await;
    assert!(matches!(
        b.cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await,
        Err(Error::Inactivo)
    ));
    assert!(matches!(b.cuentas.usuario(&uno.access_token).await, Err(Error::Inactivo)));
    assert!(matches!(b.cuentas.refrescar(&uno.refresh_token).await, Err(Error::Inactivo)));
    activa(&b, true).await;
    b.clock.advance(Duration::from_mins(1));
    b.cuentas.refrescar(&uno.refresh_token).await.unwrap();
}

#[tokio::test]
async fn an_identity_without_a_person_has_no_profile() {
    let b = banco(Registro::Open).await;
    let hash = Claves::new(1).hash("una clave larga").await.unwrap();
    let mut tx = b.store.write().await.unwrap();
    store::identidades::create(&mut tx, "u1", "s@x.pe", &hash, true, b.clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(
        b.cuentas.entrar("s@x.pe", "una clave larga", None, Origen::consola()).await,
        Err(Error::SinPerfil)
    ));
    assert!(matches!(b.cuentas.perfil("u1").await, Err(Error::SinPerfil)));
}

#[tokio::test]
async fn a_sign_in_sees_what_changed_while_the_password_was_checked() {
    let b = banco(Registro::Open).await;
    let nueva = empresa("a@x.pe", "20000000001", "10000001");
    b.cuentas.registrar_empresa(nueva, Origen::consola()).await.unwrap();
    // It has looked at the person, and waits for the writer.
    let mut tx = b.store.write().await.unwrap();
    let cuentas = b.cuentas.clone();
    let entra =
        tokio::spawn(
            async move { cuentas.entrar("a@x.pe", "una clave larga", None, Origen::consola()).await },
        );
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    trabajadores::set_all_active(&mut tx, false).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(entra.await.unwrap(), Err(Error::Inactivo)));
}
