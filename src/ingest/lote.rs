//! What a batch of messages comes to: rows, alerts, refusals, answers and events. Pure: the store is
//! asked before (which keys exist) and told after.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::mensaje::{Mensaje, Resultado};
use super::vivo::{Sensor, Vivo};
use crate::alertas::{self, Abierta, Paso, Umbrales};
use crate::domain::{Accion, Alerta, Lectura, Motivo, Rechazo, SensorRef, Timestamp, Valores, Variable};
use crate::realtime::rutas::Salida;
use crate::realtime::{Evento, Que};
use crate::store::lecturas::Fila;

/// Variables in a stored reading, which may be the union of many messages, and among a sensor's newest
/// values.
const MAX_NOMBRES: usize = 256;

/// The key of a reading.
pub(super) type Clave = (i64, Timestamp);

/// A stored or to-be-stored reading.
struct Celda {
    valores: Valores,
    sucia: bool,
}

/// An alert that the batch touched.
pub(super) struct AlertaTocada {
    pub(super) abierta: Abierta,
    /// It is not stored yet.
    pub(super) nueva: bool,
}

/// An event, and which touched alert gives it its key.
enum Suceso {
    Lectura(Evento),
    Alerta { tocada: usize, accion: Accion, alerta: Box<Alerta>, sensor: SensorRef },
}

/// See the module.
#[derive(Default)]
pub(super) struct Lote {
    celdas: HashMap<Clave, Celda>,
    sensores: HashMap<i64, Sensor>,
    movidos: Vec<i64>,
    pub(super) tocadas: Vec<AlertaTocada>,
    /// (sensor, variable) → its alert in `tocadas`, while that is open.
    indice: HashMap<(i64, String), usize>,
    pub(super) rechazos: Vec<(i64, Timestamp, Rechazo)>,
    sucesos: Vec<Suceso>,
    pub(super) resultados: Vec<Resultado>,
}

/// What is left once a batch is committed.
pub(super) struct Hecho {
    pub(super) sensores: HashMap<i64, Sensor>,
    pub(super) eventos: Vec<Evento>,
    pub(super) resultados: Vec<Resultado>,
    /// What subscribers are told of it.
    pub(super) salidas: Vec<Salida>,
}

impl Lote {
    /// Starts from what is stored already for keys of the batch.
    pub(super) fn new(existentes: Vec<Fila>) -> Self {
        let celda = |f: Fila| ((f.id_sensor, f.ts), Celda { valores: f.valores, sucia: false });
        Self { celdas: existentes.into_iter().map(celda).collect(), ..Self::default() }
    }

    /// Takes one message; every reading of it has its moment. Answers what becomes of it.
    pub(super) fn agrega(&mut self, vivo: &Vivo, mensaje: &Mensaje) -> &Resultado {
        let mut resultado = Resultado { rechazos: mensaje.rechazos.clone(), ..Resultado::default() };
        if vivo.retirado(mensaje.sensor.id_sensor) {
            let de = |l: &Lectura| Rechazo::new(Motivo::SensorInactivo, None, l.ts, &l.valores.to_json());
            resultado.rechazos.extend(mensaje.lecturas.iter().map(de));
        } else {
            self.agrega_lecturas(vivo, mensaje, &mut resultado);
        }
        let id_sensor = mensaje.sensor.id_sensor;
        let rechazos = resultado.rechazos.iter().map(|r| (id_sensor, mensaje.recibido, r.clone()));
        self.rechazos.extend(rechazos);
        self.resultados.push_mut(resultado)
    }

    fn agrega_lecturas(&mut self, vivo: &Vivo, mensaje: &Mensaje, resultado: &mut Resultado) {
        let umbrales = vivo.umbrales(&mensaje.sensor);
        let mut lecturas: Vec<(Timestamp, &Valores)> =
            mensaje.lecturas.iter().filter_map(|l| Some((l.ts?, &l.valores))).collect();
        lecturas.sort_by_key(|(ts, _)| *ts);
        // The worst excursion of each variable among readings that are history.
        let mut historicas: Vec<Alerta> = Vec::new();
        // What decoding lets pass is within the installation's days; an empresa may keep fewer.
        let minima = vivo.retencion(mensaje.sensor.id_empresa).map(|dias| mensaje.recibido.minus(dias));
        for (ts, valores) in lecturas {
            if minima.is_some_and(|minima| ts < minima) {
                let contenido = valores.to_json();
                resultado.rechazos.push(Rechazo::new(Motivo::TimestampAntiguo, None, Some(ts), &contenido));
                continue;
            }
            let Some(valores) = self.admitidos(vivo, &mensaje.sensor, ts, valores, resultado) else {
                continue;
            };
            let Some(nuevos) = self.guarda(&mensaje.sensor, ts, &valores, resultado) else { continue };
            let sensor = self.toca(vivo, mensaje.sensor.id_sensor);
            if sensor.ultima.as_ref().is_some_and(|(ultima, _)| ts < *ultima) {
                historia(&mut historicas, &mensaje.sensor, &umbrales, ts, &nuevos);
                continue;
            }
            match &mut sensor.ultima {
                Some((ultima, vigentes)) => {
                    *ultima = ts;
                    vigentes.overlay_bounded(&nuevos, MAX_NOMBRES);
                }
                ultima => *ultima = Some((ts, nuevos.clone())),
            }
            self.movidos.push(mensaje.sensor.id_sensor);
            let que = Que::Lectura { ts, valores: nuevos.clone() };
            self.sucesos.push(Suceso::Lectura(Evento::new(mensaje.sensor.clone(), que)));
            for (variable, valor) in nuevos.iter() {
                if let Some(umbral) = umbrales.de(variable) {
                    resultado.alertas_generadas += self.evalua(&mensaje.sensor, variable, umbral, valor, ts);
                }
            }
        }
        resultado.alertas_generadas += u32::try_from(historicas.len()).unwrap_or(u32::MAX);
        let nuevas = historicas.into_iter().map(|alerta| Abierta { alerta, dentro: 0 });
        self.tocadas.extend(nuevas.map(|abierta| AlertaTocada { abierta, nueva: true }));
    }

    /// The values whose names the sensor has room for; the others are refused.
    fn admitidos(
        &mut self,
        vivo: &Vivo,
        quien: &SensorRef,
        ts: Timestamp,
        valores: &Valores,
        resultado: &mut Resultado,
    ) -> Option<Valores> {
        let sensor = self.toca(vivo, quien.id_sensor);
        let de_mas: Vec<&Variable> =
            valores.iter().map(|(v, _)| v).filter(|v| !sensor.admite(v, MAX_NOMBRES)).collect();
        if de_mas.is_empty() {
            return Some(valores.clone());
        }
        let mut quedan = Valores::new();
        for (variable, valor) in valores.iter() {
            if de_mas.contains(&variable) {
                let (nombre, contenido) = (Some(variable.as_str()), valor.to_string());
                resultado.rechazos.push(Rechazo::new(
                    Motivo::DemasiadasVariables,
                    nombre,
                    Some(ts),
                    &contenido,
                ));
            } else {
                quedan.set(variable.clone(), valor);
            }
        }
        (!quedan.is_empty()).then_some(quedan)
    }

    /// Puts a reading in its cell: stored, merged, or found there already. Answers the values that
    /// are new, `None` when there is none.
    fn guarda(
        &mut self,
        sensor: &SensorRef,
        ts: Timestamp,
        valores: &Valores,
        resultado: &mut Resultado,
    ) -> Option<Valores> {
        let celda = match self.celdas.entry((sensor.id_sensor, ts)) {
            Entry::Vacant(hueco) => {
                hueco.insert(Celda { valores: valores.clone(), sucia: true });
                resultado.aceptadas += 1;
                return Some(valores.clone());
            }
            Entry::Occupied(celda) => celda.into_mut(),
        };
        let (mut nuevos, mut iguales) = (Valores::new(), 0);
        for (variable, valor) in valores.iter() {
            match celda.valores.get(variable) {
                None => nuevos.set(variable.clone(), valor),
                Some(guardado) if mismo(guardado, valor) => iguales += 1,
                Some(_) => {
                    let contenido = valor.to_string();
                    resultado.rechazos.push(Rechazo::new(
                        Motivo::Conflicto,
                        Some(variable.as_str()),
                        Some(ts),
                        &contenido,
                    ));
                }
            }
        }
        if nuevos.is_empty() {
            resultado.duplicadas += u32::from(iguales > 0);
            return None;
        }
        if celda.valores.len() + nuevos.len() > MAX_NOMBRES {
            let contenido = nuevos.to_json();
            resultado.rechazos.push(Rechazo::new(Motivo::DemasiadasVariables, None, Some(ts), &contenido));
            return None;
        }
        celda.valores.overlay(&nuevos);
        celda.sucia = true;
        resultado.aceptadas += 1;
        Some(nuevos)
    }

    fn toca(&mut self, vivo: &Vivo, id_sensor: i64) -> &mut Sensor {
        self.sensores.entry(id_sensor).or_insert_with(|| vivo.sensor(id_sensor))
    }

    /// One step of the alert of (sensor, variable); answers how many alerts it opened.
    fn evalua(
        &mut self,
        quien: &SensorRef,
        variable: &Variable,
        umbral: crate::domain::Rango,
        valor: f64,
        ts: Timestamp,
    ) -> u32 {
        let Some(sensor) = self.sensores.get_mut(&quien.id_sensor) else { return 0 };
        let paso = alertas::evalua(sensor.abierta(variable.as_str()), quien, variable, umbral, valor, ts);
        let (accion, abierta) = match paso {
            Paso::Nada => return 0,
            Paso::Cuenta(abierta) => (None, abierta),
            Paso::Cambia(accion, abierta) => (Some(accion), abierta),
        };
        sensor.pon(abierta.clone());
        let clave = (quien.id_sensor, variable.as_str().to_owned());
        let tocada = *self.indice.entry(clave.clone()).or_insert(self.tocadas.len());
        let nueva = abierta.alerta.id_alerta == 0;
        let alerta = Box::new(abierta.alerta.clone());
        match self.tocadas.get_mut(tocada) {
            Some(ya) => ya.abierta = abierta,
            None => self.tocadas.push(AlertaTocada { abierta, nueva }),
        }
        if accion == Some(Accion::Resuelta) {
            // What opens next for this variable is another alert.
            self.indice.remove(&clave);
        }
        if let Some(accion) = accion {
            self.sucesos.push(Suceso::Alerta { tocada, accion, alerta, sensor: quien.clone() });
        }
        u32::from(accion == Some(Accion::Creada))
    }

    /// The rows of `lecturas` to write, in key order, which is the order of the table.
    pub(super) fn filas(&self) -> Vec<Fila> {
        let sucias = self.celdas.iter().filter(|(_, c)| c.sucia);
        let mut filas: Vec<Fila> = sucias
            .map(|((id, ts), c)| Fila { id_sensor: *id, ts: *ts, valores: c.valores.clone() })
            .collect();
        filas.sort_unstable_by_key(|f| (f.id_sensor, f.ts));
        filas
    }

    /// Pages that it writes, roughly: one a sensor, one an alert or refusal, and what holds them.
    pub(super) fn paginas(&self) -> usize {
        4 + self.sensores.len() + self.tocadas.len() + self.rechazos.len()
    }

    /// The rows of `ultimas_lecturas` to write.
    pub(super) fn ultimas(&self) -> Vec<Fila> {
        let mut movidos = self.movidos.clone();
        movidos.sort_unstable();
        movidos.dedup();
        let fila = |id: i64| {
            let (ts, valores) = self.sensores.get(&id)?.ultima.clone()?;
            Some(Fila { id_sensor: id, ts, valores })
        };
        movidos.into_iter().filter_map(fila).collect()
    }

    /// The batch is written, and its new alerts have their keys.
    pub(super) fn hecho(mut self) -> Hecho {
        for AlertaTocada { abierta, .. } in &self.tocadas {
            if abierta.alerta.estado.abierta()
                && let Some(sensor) = self.sensores.get_mut(&abierta.alerta.id_sensor)
            {
                sensor.pon(abierta.clone());
            }
        }
        let tocadas = &self.tocadas;
        let evento = |suceso| match suceso {
            Suceso::Lectura(evento) => evento,
            Suceso::Alerta { tocada, accion, mut alerta, sensor } => {
                alerta.id_alerta = tocadas[tocada].abierta.alerta.id_alerta;
                Evento::new(sensor, Que::Alerta(accion, alerta))
            }
        };
        let eventos = self.sucesos.into_iter().map(evento).collect();
        Hecho { sensores: self.sensores, eventos, resultados: self.resultados, salidas: Vec::new() }
    }
}

/// Whether two values are the same measurement: the very same double, as JSON carries it.
fn mismo(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a == 0.0 && b == 0.0)
}

fn historia(
    historicas: &mut Vec<Alerta>,
    sensor: &SensorRef,
    umbrales: &Umbrales,
    ts: Timestamp,
    valores: &Valores,
) {
    for (variable, valor) in valores.iter() {
        let alerta = umbrales.de(variable).and_then(|u| alertas::historica(sensor, variable, u, valor, ts));
        let Some(alerta) = alerta else { continue };
        match historicas.iter_mut().find(|h| h.tipo_alerta == alerta.tipo_alerta) {
            Some(peor) if alerta.severidad > peor.severidad => *peor = alerta,
            Some(_) => {}
            None => historicas.push(alerta),
        }
    }
}
