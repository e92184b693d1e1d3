//! Who may publish and subscribe to what: the table of contract section 1, nothing else.
//!
//! A subscription with a wildcard is granted where it could match something that the subscriber may
//! see, and every delivery is checked again ([`entrega`]), so that a permission that ends, ends.

use crate::domain::{Rol, SensorRef};
use crate::identity::{Directorio, Principal, prueba};

/// The leaves under `sensores/{device_id}/` that people may hear.
const PARA_USUARIOS: [&str; 4] = ["data", "estado", "respuestas", "errores"];
/// The leaves that the device itself may hear.
const PARA_EL_DISPOSITIVO: [&str; 3] = ["comandos", "config", "errores"];

/// What becomes of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Publicar {
    /// Readings: validated and committed before anything else.
    Ingerir(SensorRef),
    /// Routed as it is.
    Rutear,
    /// A reading of the self-test: committed as one of a device, told to nobody.
    Probar,
    /// Refused.
    Negado,
}

/// Whether `quien` may publish to `topic`.
pub(super) fn publica(quien: &Principal, topic: &str) -> Publicar {
    match quien {
        Principal::Dispositivo(propio) => match hoja(topic) {
            Some((id, "data")) if id == propio.device_id.as_str() => Publicar::Ingerir(propio.clone()),
            Some((id, "respuestas")) if id == propio.device_id.as_str() => Publicar::Rutear,
            _ => Publicar::Negado,
        },
        Principal::Usuario(_) | Principal::Llave(_) => Publicar::Negado,
        Principal::Anonimo if reservado(topic) => Publicar::Negado,
        Principal::Anonimo => Publicar::Rutear,
        Principal::Prueba => match topic.strip_prefix(prueba::TOPIC) {
            Some(cual) if !cual.is_empty() && !cual.contains('/') => Publicar::Probar,
            _ => Publicar::Negado,
        },
    }
}

/// Whether a will is taken and then never sent: a device's own on its `estado`, which the server
/// says for it.
pub(super) fn testamento_superfluo(quien: &Principal, topic: &str) -> bool {
    matches!(quien, Principal::Dispositivo(propio)
        if hoja(topic).is_some_and(|(id, h)| id == propio.device_id.as_str() && h == "estado"))
}

/// Whether `quien` may subscribe to `filtro`.
pub(super) fn suscribe(quien: &Principal, filtro: &str, directorio: &Directorio) -> bool {
    let niveles: Vec<&str> = filtro.split('/').collect();
    match quien {
        Principal::Dispositivo(propio) => match niveles[..] {
            ["sensores", id, h] => {
                id == propio.device_id.as_str() && (comodin(h) || PARA_EL_DISPOSITIVO.contains(&h))
            }
            _ => false,
        },
        // The installation's figures, and no empresa's data.
        Principal::Usuario(usuario) if usuario.rol == Rol::Operador => niveles[0] == "$SYS",
        Principal::Usuario(_) | Principal::Llave(_) => match niveles[..] {
            ["sensores" | "alertas", "#"] | ["sensores", "+", "#"] | ["alertas", "+"] => true,
            ["alertas", id] => quien.alcance().is_some_and(|a| a.id_empresa.to_string() == id),
            ["sensores", "+", h] => h == "+" || PARA_USUARIOS.contains(&h),
            ["sensores", id, h] => {
                (comodin(h) || PARA_USUARIOS.contains(&h))
                    && directorio.sensor(id).is_some_and(|s| directorio.puede_ver(quien, &s))
            }
            _ => false,
        },
        Principal::Anonimo => !matches!(niveles[0], "sensores" | "alertas"),
        Principal::Prueba => false,
    }
}

/// Whether a message may reach `quien`, now. `sensor` is whose event it is, where that is known besides
/// what the topic says.
pub(super) fn entrega(quien: &Principal, topic: &str, sensor: Option<i64>, directorio: &Directorio) -> bool {
    // What was said of a sensor is not of another that has its name now.
    let suyo = |s: &SensorRef| sensor.is_none_or(|id| id == s.id_sensor);
    match quien {
        Principal::Dispositivo(propio) => hoja(topic).is_some_and(|(id, h)| {
            id == propio.device_id.as_str() && PARA_EL_DISPOSITIVO.contains(&h) && suyo(propio)
        }),
        Principal::Usuario(usuario) if usuario.rol == Rol::Operador => topic.starts_with("$SYS/"),
        Principal::Usuario(_) | Principal::Llave(_) => match topic.split_once('/') {
            Some(("sensores", _)) => hoja(topic).is_some_and(|(id, h)| {
                PARA_USUARIOS.contains(&h)
                    && directorio.sensor(id).is_some_and(|s| suyo(&s) && directorio.puede_ver(quien, &s))
            }),
            Some(("alertas", empresa)) => {
                let (Ok(id_empresa), Some(id_sensor)) = (empresa.parse(), sensor) else { return false };
                quien.alcance().is_some_and(|a| directorio.alcanza(a, id_sensor, id_empresa))
            }
            _ => false,
        },
        Principal::Anonimo => !reservado(topic),
        Principal::Prueba => false,
    }
}

/// (`device_id`, leaf) of `sensores/{device_id}/{leaf}`.
pub(super) fn hoja(topic: &str) -> Option<(&str, &str)> {
    let (device_id, hoja) = topic.strip_prefix("sensores/")?.split_once('/')?;
    (!hoja.contains('/')).then_some((device_id, hoja))
}

/// Whether only the server has something retained on a topic: two for each device.
pub(super) fn del_servidor(topic: &str) -> bool {
    matches!(hoja(topic), Some((_, "estado" | "config")))
}

fn comodin(nivel: &str) -> bool {
    matches!(nivel, "+" | "#")
}

/// Topics that even an open broker keeps for itself: the product's own, and `$…`.
fn reservado(topic: &str) -> bool {
    matches!(topic.split('/').next(), Some("sensores" | "alertas")) || topic.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeviceId;

    fn dispositivo() -> Principal {
        let device_id = DeviceId::new("s1").unwrap();
        Principal::Dispositivo(SensorRef { id_sensor: 1, id_empresa: 1, device_id })
    }

    #[test]
    fn a_device_publishes_its_own_readings_and_answers_only() {
        let d = dispositivo();
        assert!(matches!(publica(&d, "sensores/s1/data"), Publicar::Ingerir(_)));
        assert_eq!(publica(&d, "sensores/s1/respuestas"), Publicar::Rutear);
        for topic in [
            "sensores/s2/data",
            "sensores/s1/estado",
            "sensores/s1/data/x",
            "sensores//data",
            "alertas/1",
            "x",
            "$SYS/x",
            "sensores/s1/comandos",
        ] {
            assert_eq!(publica(&d, topic), Publicar::Negado, "{topic}");
        }
    }

    #[test]
    fn the_self_test_has_a_topic_of_its_own_and_nobody_else_has_it() {
        for (quien, espera) in [
            (Principal::Prueba, Publicar::Probar),
            (Principal::Anonimo, Publicar::Negado),
            (dispositivo(), Publicar::Negado),
        ] {
            assert_eq!(publica(&quien, "$doctor/1"), espera, "{quien:?}");
        }
        for topic in ["$doctor", "$doctor/", "$doctor/1/2", "sensores/s1/data", "alertas/1", "$SYS/x", "x"] {
            assert_eq!(publica(&Principal::Prueba, topic), Publicar::Negado, "{topic}");
        }
    }

    #[test]
    fn an_open_broker_keeps_the_products_topics() {
        for topic in ["sensores/s1/data", "sensores", "alertas", "alertas/1", "$SYS/x"] {
            assert_eq!(publica(&Principal::Anonimo, topic), Publicar::Negado, "{topic}");
        }
        assert_eq!(publica(&Principal::Anonimo, "a/b"), Publicar::Rutear);
    }
}
