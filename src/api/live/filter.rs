//! What a client wants to hear of what it may hear.

use std::collections::HashSet;

use serde::Deserialize;

use crate::api::problem::{Problem, Texto};
use crate::realtime::Evento;

/// Most sensors that a filter may name: as many as a list answers.
const MAX_SENSORES: usize = 1_000;

/// A kind of event, by the name that clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Lectura,
    Alerta,
    Estado,
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        [Self::Lectura, Self::Alerta, Self::Estado].into_iter().find(|k| k.as_str() == text)
    }

    /// As [`Evento::nombre`] says it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Lectura => "lectura",
            Self::Alerta => "alerta",
            Self::Estado => "estado",
        }
    }
}

/// Absent = everything. It only ever narrows: who may see a sensor is the directory's to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Filter {
    sensores: Option<HashSet<i64>>,
    eventos: Option<HashSet<Kind>>,
}

impl Filter {
    /// From `?sensores=1,2&eventos=lectura,alerta`.
    pub(super) fn from_query(sensores: Option<&str>, eventos: Option<&str>) -> Result<Self, Problem> {
        let mut malos = Vec::new();
        let sensores = sensores.map(|texto| each(texto, |s| s.parse().ok()));
        let eventos = eventos.map(|texto| each(texto, Kind::parse));
        if matches!(sensores, Some(None)) {
            let texto =
                Texto::new("Son números separados por comas.", "They are numbers separated by commas.");
            malos.push(("sensores".to_owned(), texto));
        }
        if matches!(eventos, Some(None)) {
            let texto = Texto::new("Son lectura, alerta o estado.", "They are lectura, alerta or estado.");
            malos.push(("eventos".to_owned(), texto));
        }
        if malos.is_empty() {
            Ok(Self { sensores: sensores.flatten(), eventos: eventos.flatten() })
        } else {
            Err(Problem::invalid(malos))
        }
    }

    /// From the message `{"type":"subscribe","sensores":[…]?,"eventos":[…]?}`, which takes the place
    /// of what was asked before; `None` when it cannot be read.
    pub(super) fn from_message(text: &str) -> Option<Self> {
        let filter: Self = serde_json::from_str(text).ok()?;
        filter.sensores.as_ref().is_none_or(|s| s.len() <= MAX_SENSORES).then_some(filter)
    }

    /// The sensors that it names; `None` = all.
    pub(super) const fn sensores(&self) -> Option<&HashSet<i64>> {
        self.sensores.as_ref()
    }

    /// Whether the client wants to hear of this sensor.
    pub(super) fn wants_sensor(&self, id_sensor: i64) -> bool {
        self.sensores.as_ref().is_none_or(|s| s.contains(&id_sensor))
    }

    /// Whether the client wants this event.
    pub(super) fn wants(&self, evento: &Evento) -> bool {
        let kind = Kind::parse(evento.nombre());
        self.wants_sensor(evento.sensor.id_sensor)
            && self.eventos.as_ref().is_none_or(|e| kind.is_some_and(|k| e.contains(&k)))
    }
}

/// Each part between commas; `None` when one cannot be read, or there are too many.
fn each<T: Eq + std::hash::Hash>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<HashSet<T>> {
    let all: HashSet<T> = text.split(',').map(|part| parse(part.trim())).collect::<Option<_>>()?;
    (all.len() <= MAX_SENSORES).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Conexion, DeviceId, SensorRef, Timestamp, Valores};
    use crate::realtime::Que;

    fn evento(id_sensor: i64, que: Que) -> Evento {
        Evento::new(SensorRef { id_sensor, id_empresa: 1, device_id: DeviceId::new("s").unwrap() }, que)
    }

    fn lectura(id_sensor: i64) -> Evento {
        let que = Que::Lectura { ts: Timestamp::MIN, valores: Valores::new() };
        evento(id_sensor, que)
    }

    #[test]
    fn without_a_filter_everything_is_wanted() {
        for filter in [Filter::from_query(None, None).unwrap(), Filter::from_message("{}").unwrap()] {
            assert!(filter.wants(&lectura(1)) && filter.wants(&evento(2, Que::Estado(Conexion::Online))));
        }
    }

    #[test]
    fn query_and_message_narrow_the_same_way() {
        let query = Filter::from_query(Some("1, 2"), Some("lectura,alerta")).unwrap();
        let message =
            Filter::from_message(r#"{"type":"subscribe","sensores":[1,2],"eventos":["lectura","alerta"]}"#);
        assert_eq!(message, Some(query));
        let filter = message.unwrap();
        assert!(filter.wants(&lectura(1)));
        assert!(!filter.wants(&lectura(3)));
        assert!(!filter.wants(&evento(1, Que::Estado(Conexion::Offline))));
    }

    #[test]
    fn an_empty_list_wants_nothing() {
        let filter = Filter::from_message(r#"{"sensores":[]}"#).unwrap();
        assert!(!filter.wants(&lectura(1)));
    }

    #[test]
    fn nonsense_is_refused() {
        for (sensores, eventos) in
            [(Some("1,x"), None), (Some(""), None), (None, Some("todo")), (None, Some(""))]
        {
            assert!(Filter::from_query(sensores, eventos).is_err(), "{sensores:?} {eventos:?}");
        }
        for text in ["", "[]", r#"{"sensores":"1"}"#, r#"{"eventos":["todo"]}"#] {
            assert_eq!(Filter::from_message(text), None, "{text}");
        }
    }
}
