//! Retained messages: in memory to be found, in the store to survive. What clients may have retained is
//! bounded in number and in bytes; what the server itself says of its devices always fits, and is bounded
//! by their number.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::publicacion::{Publicacion, Qos};
use super::{acl, topic};
use crate::domain::Timestamp;
use crate::store::mqtt::{Cambio, Retenido};

/// Bytes of retained messages, all together.
const MAX_BYTES: usize = 256 << 20;

/// See the module.
pub(super) struct Retained {
    max: usize,
    /// The broker's own (`$SYS/…`): few, and in nobody's way.
    propios: RwLock<HashMap<String, Arc<Publicacion>>>,
    tabla: RwLock<Tabla>,
    en_camino: Camino,
    numero: AtomicU64,
}

/// Messages on their way to the store, which take their topics' places once they are there, in the order in which they
/// came: few, as many as the writer has room for.
type Camino = Arc<Mutex<BTreeMap<u64, Arc<Publicacion>>>>;

/// A message is on its way, until this is dropped.
pub(super) struct EnCamino {
    todos: Camino,
    numero: u64,
}

impl Drop for EnCamino {
    fn drop(&mut self) {
        self.todos.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.numero);
    }
}

/// By topic; and of those that clients published, how many they are and what they weigh.
#[derive(Default)]
struct Tabla {
    mapa: BTreeMap<String, Arc<Publicacion>>,
    ajenos: usize,
    bytes: usize,
}

impl Tabla {
    /// What a message takes of the room that clients have.
    fn ocupa(mensaje: &Publicacion) -> (usize, usize) {
        if acl::del_servidor(&mensaje.topic) { (0, 0) } else { (1, mensaje.peso()) }
    }

    fn mete(&mut self, mensaje: &Arc<Publicacion>) {
        let (uno, peso) = Self::ocupa(mensaje);
        (self.ajenos, self.bytes) = (self.ajenos + uno, self.bytes + peso);
        self.mapa.insert(mensaje.topic.clone(), mensaje.clone());
    }

    fn saca(&mut self, topic: &str) {
        if let Some(viejo) = self.mapa.remove(topic) {
            let (uno, peso) = Self::ocupa(&viejo);
            (self.ajenos, self.bytes) = (self.ajenos - uno, self.bytes - peso);
        }
    }
}

impl Retained {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            propios: RwLock::default(),
            tabla: RwLock::default(),
            en_camino: Camino::default(),
            numero: AtomicU64::new(0),
        }
    }

    /// Takes over what the store has.
    pub(super) fn restaura(&self, retenidos: Vec<Retenido>) {
        for r in retenidos {
            self.pon(&Arc::new(Publicacion::guardada(r.contenido, Qos::de(r.qos), true)));
        }
    }

    /// Whether there is room for a message in place of the last one of its topic.
    pub(super) fn cabe(&self, mensaje: &Publicacion) -> bool {
        let tabla = self.lee();
        let (uno, peso) = Tabla::ocupa(mensaje);
        let (otro, suyo) = tabla.mapa.get(&mensaje.topic).map_or((0, 0), |viejo| Tabla::ocupa(viejo));
        mensaje.payload.is_empty()
            || uno == 0
            || (tabla.ajenos - otro < self.max && tabla.bytes - suyo + peso <= MAX_BYTES)
    }

    /// The change that keeps a message, or forgets its topic.
    pub(super) fn cambio(mensaje: &Publicacion) -> Cambio {
        if mensaje.payload.is_empty() {
            return Cambio::Olvida(mensaje.topic.clone());
        }
        Cambio::Retiene(Box::new(Retenido { contenido: mensaje.contenido(), qos: mensaje.qos.codigo() }))
    }

    /// Keeps a message in place of the last one of its topic; an empty one clears it
    /// [MQTT-3.3.1-6].
    pub(super) fn pon(&self, mensaje: &Arc<Publicacion>) {
        let mut tabla = self.escribe();
        tabla.saca(&mensaje.topic);
        if !mensaje.payload.is_empty() {
            tabla.mete(mensaje);
        }
    }

    /// A message is to take its topic's place. Said before it is known whom it is kept for: a session that subscribes
    /// meanwhile is either among those, or finds it here.
    pub(super) fn viene(&self, mensaje: &Arc<Publicacion>) -> EnCamino {
        let numero = self.numero.fetch_add(1, Ordering::Relaxed);
        self.en_camino.lock().unwrap_or_else(PoisonError::into_inner).insert(numero, mensaje.clone());
        EnCamino { todos: self.en_camino.clone(), numero }
    }

    /// As [`Self::para`], for a session that is kept: with what is on its way to the store before this subscription, and
    /// will not be given to it as it comes.
    pub(super) fn para_guardada(&self, filtro: &str, ahora: Timestamp) -> (Vec<Arc<Publicacion>>, usize) {
        // First: what arrives meanwhile is in the table by then.
        let en_camino: Vec<_> = {
            let todos = self.en_camino.lock().unwrap_or_else(PoisonError::into_inner);
            let suyos = todos.values().filter(|m| m.qos > Qos::Cero && topic::coincide(filtro, &m.topic));
            suyos.cloned().collect()
        };
        let (mut hallados, mirados) = self.para(filtro, ahora);
        for mensaje in en_camino {
            hallados.retain(|m| m.topic != mensaje.topic);
            if !mensaje.payload.is_empty() && !mensaje.vencida(ahora) {
                hallados.push(mensaje);
            }
        }
        (hallados, mirados)
    }

    /// Keeps a message of the broker's own, in memory alone.
    pub(super) fn pon_propio(&self, mensaje: &Arc<Publicacion>) {
        let mut propios = self.propios.write().unwrap_or_else(PoisonError::into_inner);
        propios.insert(mensaje.topic.clone(), mensaje.clone());
    }

    /// What is retained on a topic.
    pub(super) fn de(&self, topic: &str) -> Option<Arc<Publicacion>> {
        self.lee().mapa.get(topic).cloned()
    }

    /// What a new subscription to `filtro` is sent, by topic; and how many messages were looked at for that.
    pub(super) fn para(&self, filtro: &str, ahora: Timestamp) -> (Vec<Arc<Publicacion>>, usize) {
        if filtro.starts_with('$') {
            // [MQTT-4.7.2-1]: no other filter matches these.
            let propios = self.propios.read().unwrap_or_else(PoisonError::into_inner);
            let suyos = propios.values().filter(|m| topic::coincide(filtro, &m.topic)).cloned().collect();
            return (suyos, propios.len());
        }
        let tabla = self.lee();
        let Some(comodin) = filtro.find(['+', '#']) else {
            let suyo = tabla.mapa.get(filtro).filter(|m| !m.vencida(ahora)).cloned();
            return (suyo.into_iter().collect(), 1);
        };
        let comienzo = &filtro[..comodin];
        // `a/#` matches `a` as well.
        let comienzo = comienzo.strip_suffix('/').filter(|_| filtro[comodin..] == *"#").unwrap_or(comienzo);
        let desde = (Bound::Included(comienzo), Bound::Unbounded);
        let mut mirados = 0;
        let hallados = tabla.mapa.range::<str, _>(desde).take_while(|(topic, _)| topic.starts_with(comienzo));
        let hallados = hallados.inspect(|_| mirados += 1).map(|(_, m)| m);
        let suyos =
            hallados.filter(|m| !m.vencida(ahora) && topic::coincide(filtro, &m.topic)).cloned().collect();
        (suyos, mirados)
    }

    /// Forgets what has expired [MQTT-3.3.2-5], and what was said of a device that is not in use any more
    /// (`en_uso`); answers the changes that forget it for good.
    pub(super) fn limpia(&self, ahora: Timestamp, en_uso: impl Fn(&str, i64) -> bool) -> Vec<Cambio> {
        let sobra = |m: &Arc<Publicacion>| match (m.expira.filter(|e| *e <= ahora), m.sensor) {
            // Not whatever is on the topic: what takes its place may be on its way to the store.
            (Some(expira), _) => Some(Cambio::Vence { topic: m.topic.clone(), expira }),
            (None, Some(id)) if acl::hoja(&m.topic).is_some_and(|(device_id, _)| !en_uso(device_id, id)) => {
                Some(Cambio::OlvidaDe { topic: m.topic.clone(), id_sensor: id })
            }
            _ => None,
        };
        let tabla = self.lee();
        let sobran: Vec<String> =
            tabla.mapa.iter().filter(|(_, m)| sobra(m).is_some()).map(|(topic, _)| topic.clone()).collect();
        drop(tabla);
        if sobran.is_empty() {
            return Vec::new();
        }
        let mut tabla = self.escribe();
        let mut cambios = Vec::with_capacity(sobran.len());
        for topic in sobran {
            // Unless another has come in between.
            if let Some(cambio) = tabla.mapa.get(&topic).and_then(sobra) {
                tabla.saca(&topic);
                cambios.push(cambio);
            }
        }
        cambios
    }

    /// How many there are.
    pub(super) fn cuantos(&self) -> usize {
        self.lee().mapa.len()
    }

    /// Retained messages that `quiere`.
    pub(super) fn busca(&self, quiere: impl Fn(&Publicacion) -> bool) -> Vec<Arc<Publicacion>> {
        self.lee().mapa.values().filter(|m| quiere(m)).cloned().collect()
    }

    fn lee(&self) -> RwLockReadGuard<'_, Tabla> {
        self.tabla.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn escribe(&self) -> RwLockWriteGuard<'_, Tabla> {
        self.tabla.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mensaje(topic: &str, expira: Option<Timestamp>, sensor: Option<i64>) -> Arc<Publicacion> {
        let mensaje = Publicacion::del_servidor(topic.to_owned(), "x", Qos::Uno, true);
        Arc::new(Publicacion { expira, sensor, ..mensaje })
    }

    #[test]
    fn what_expired_and_what_was_said_of_a_device_that_is_gone_is_forgotten_and_nothing_else() {
        let retained = Retained::new(10);
        let pronto = Timestamp::MIN.plus(Duration::from_secs(1));
        let tarde = pronto.plus(Duration::from_secs(1));
        for (topic, expira, sensor) in [
            ("a", Some(pronto), None),
            ("b", Some(tarde), None),
            ("c", None, None),
            ("sensores/ido/config", None, Some(1)),
            // Another device has its name now.
            ("sensores/otro/estado", None, Some(2)),
            ("sensores/otro/config", None, Some(3)),
        ] {
            retained.pon(&mensaje(topic, expira, sensor));
        }
        let mut cambios = retained.limpia(pronto, |device_id, id| (device_id, id) == ("otro", 3));
        cambios.sort_by_key(|c| format!("{c:?}"));
        let olvida = |topic: &str, id_sensor| Cambio::OlvidaDe { topic: topic.to_owned(), id_sensor };
        assert_eq!(
            cambios,
            [
                olvida("sensores/ido/config", 1),
                olvida("sensores/otro/estado", 2),
                Cambio::Vence { topic: "a".to_owned(), expira: pronto },
            ]
        );
        let quedan: Vec<_> = ["b", "c", "sensores/otro/config"].map(|t| retained.de(t).is_some()).into();
        assert_eq!((retained.cuantos(), quedan), (3, vec![true; 3]));
    }

    #[test]
    fn a_filter_finds_all_that_it_matches_and_looks_at_what_begins_as_it_does() {
        let retained = Retained::new(1_000);
        let topics = ["a", "a/b", "a/b/c", "a/c", "ab", "ab/c", "b", "b/a", "/a", "á/b"];
        for topic in topics {
            retained.pon(&mensaje(topic, None, None));
        }
        for n in 0..100 {
            retained.pon(&mensaje(&format!("many/{n}"), None, None));
        }
        for filtro in
            ["a/#", "a/+", "a/b/#", "a/+/c", "+/b", "#", "+", "+/+", "/+", "a/+/#", "á/#", "b/#", "c/#", "ab"]
        {
            let (hallados, mirados) = retained.para(filtro, Timestamp::MIN);
            let hallados: Vec<_> = hallados.iter().map(|m| m.topic.as_str()).collect();
            let mut todos: Vec<_> = topics.iter().copied().filter(|t| topic::coincide(filtro, t)).collect();
            todos.sort_unstable();
            let muchos = filtro.starts_with(['+', '#']);
            let suyos: Vec<_> = hallados.into_iter().filter(|t| !t.starts_with("many")).collect();
            assert_eq!((suyos, mirados > 10), (todos, muchos), "{filtro}: {mirados}");
        }
    }

    #[test]
    fn what_the_server_says_of_devices_fits_beside_all_that_clients_fill() {
        let retained = Retained::new(1);
        let ajeno = mensaje("a", None, None);
        assert!(retained.cabe(&ajeno));
        retained.pon(&ajeno);
        assert!(!retained.cabe(&mensaje("b", None, None)));
        for n in 0..3 {
            let propio = mensaje(&format!("sensores/s{n}/estado"), None, Some(n));
            assert!(retained.cabe(&propio));
            retained.pon(&propio);
        }
        assert!(retained.cabe(&ajeno), "in place of the last one of its topic");
        retained.pon(&Arc::new(Publicacion { payload: "".into(), ..(*ajeno).clone() }));
        assert!(retained.cabe(&mensaje("b", None, None)), "the server's own take no room from it");
    }
}
