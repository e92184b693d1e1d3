//! Which registration is read as what.

use serde_json::{Value, json};

use super::*;

fn lee(mut extra: Value) -> Result<Pedido, Problem> {
    extra["email"] = "a@x.pe".into();
    extra["password"] = "una clave larga".into();
    serde_json::from_value::<Register>(extra).unwrap().read()
}

#[test]
fn a_wrong_user_type_makes_nobody_an_administrator() {
    let empresa = json!({"ruc": "20000000001", "razon_social": "F"});
    for tipo in ["trabajador", "operador", "", "Empresa"] {
        let cuerpo = json!({"user_type": tipo, "nombre": "L", "apellido": "R", "empresa": empresa});
        assert!(lee(cuerpo).is_err(), "{tipo}");
    }
    assert!(lee(json!({"nombre": "L", "apellido": "R"})).is_err());
}

#[test]
fn every_text_is_bounded() {
    let largo = "x".repeat(201);
    for malo in [largo.as_str(), "a\0b"] {
        for campo in ["nombre", "apellido", "telefono"] {
            let mut cuerpo = json!({"user_type": "empresa", "nombre_empresa": "F", "ruc": "20000000001"});
            cuerpo[campo] = malo.into();
            assert!(lee(cuerpo).is_err(), "{campo}");
        }
        let empresa = json!({"ruc": "20000000001", "razon_social": "F", "telefono": malo});
        assert!(lee(json!({"nombre": "A", "empresa": empresa})).is_err());
    }
}

#[test]
fn each_shape_is_read() {
    let anidada = json!({"nombre": "A", "apellido": "P", "dni": "10000001",
        "empresa": {"ruc": "20000000001", "razon_social": "F", "email": ""}});
    assert!(matches!(lee(anidada), Ok(Pedido::Empresa(e)) if e.nombre == "A" && e.empresa_email.is_none()));
    let plana = json!({"user_type": "empresa", "nombre_empresa": "G", "ruc": "20000000001", "telefono": "9"});
    assert!(matches!(lee(plana), Ok(Pedido::Empresa(e)) if e.nombre == "G" && e.razon_social == "G"));
    // As a form sends it: blank where nothing was written, and both spellings.
    let persona = json!({"user_type": "trabajador", "nombres": "L", "nombre": "L", "apellidos": "R",
        "dni": "10000002", "telefono": "", "codigo_invitacion": " "});
    let leida = lee(persona);
    assert!(
        matches!(leida, Ok(Pedido::Trabajador(t)) if t.codigo_invitacion.is_none() && t.telefono.is_none())
    );
}
