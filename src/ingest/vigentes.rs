//! The bounds that hold for each sensor: its own, before those of its crop, before those of its empresa.

use std::collections::HashMap;
use std::sync::Arc;

use crate::alertas::Umbrales;
use crate::domain::{Rango, SensorRef, Variable};
use crate::store::umbrales::{self, De, Puestos};
use crate::store::{self, Store};

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cambiados {
    /// Bounds of an empresa or in a crop of it, or a crop is gone.
    Empresa(i64),
    /// Bounds of one sensor, or the crop that it stands in.
    Sensor {
        /// The tenant.
        id_empresa: i64,
        /// The sensor.
        id_sensor: i64,
    },
}

/// All of them; a sensor for which nothing closer was set has no entry.
#[derive(Debug, Default)]
pub(super) struct Vigentes {
    empresas: HashMap<i64, DeEmpresa>,
    por_defecto: Arc<Umbrales>,
}

#[derive(Debug, Default)]
struct DeEmpresa {
    suyos: Arc<Umbrales>,
    cultivos: HashMap<i64, Arc<Umbrales>>,
    sensores: HashMap<i64, Arc<Umbrales>>,
}

type Propios = HashMap<i64, Vec<(Variable, Rango)>>;

impl Vigentes {
    pub(super) async fn load(tx: &mut store::Tx) -> store::Result<Self> {
        let empresas = resuelve(umbrales::all(tx, None).await?);
        Ok(Self { empresas, ..Self::default() })
    }

    pub(super) fn de(&self, sensor: &SensorRef) -> Arc<Umbrales> {
        let Some(empresa) = self.empresas.get(&sensor.id_empresa) else { return self.por_defecto.clone() };
        empresa.sensores.get(&sensor.id_sensor).unwrap_or(&empresa.suyos).clone()
    }

    /// Reads again what was changed.
    pub(super) async fn recarga(&mut self, store: &Store, que: Cambiados) -> store::Result<()> {
        let mut tx = store.read().await?;
        match que {
            Cambiados::Empresa(id_empresa) => {
                let puestos = umbrales::all(&mut tx, Some(id_empresa)).await?;
                let resuelta = resuelve(puestos).remove(&id_empresa).unwrap_or_default();
                self.empresas.insert(id_empresa, resuelta);
            }
            Cambiados::Sensor { id_empresa, id_sensor } => {
                let propios = umbrales::of(&mut tx, De::Sensor(id_sensor)).await?;
                let cultivo = umbrales::cultivo_of(&mut tx, id_sensor).await?;
                let empresa = self.empresas.entry(id_empresa).or_default();
                empresa.pon(id_sensor, cultivo, propios);
            }
        }
        tx.commit().await
    }
}

impl DeEmpresa {
    fn pon(&mut self, id_sensor: i64, cultivo: Option<i64>, propios: Vec<(Variable, Rango)>) {
        let del_cultivo = cultivo.and_then(|c| self.cultivos.get(&c));
        match (del_cultivo, propios.is_empty()) {
            (None, true) => drop(self.sensores.remove(&id_sensor)),
            (Some(suyos), true) => drop(self.sensores.insert(id_sensor, suyos.clone())),
            (suyos, false) => {
                let suyos = Arc::new(suyos.unwrap_or(&self.suyos).sobre(propios));
                self.sensores.insert(id_sensor, suyos);
            }
        }
    }
}

/// What holds, by empresa, given everything that was set.
fn resuelve(puestos: Puestos) -> HashMap<i64, DeEmpresa> {
    let mut empresas: HashMap<i64, DeEmpresa> = HashMap::new();
    let mut de_empresas = Propios::new();
    for (id_empresa, _, variable, rango) in puestos.empresas {
        de_empresas.entry(id_empresa).or_default().push((variable, rango));
    }
    for (id_empresa, propios) in de_empresas {
        empresas.entry(id_empresa).or_default().suyos = Arc::new(Umbrales::with(propios));
    }
    let mut de_cultivos: HashMap<(i64, i64), Vec<(Variable, Rango)>> = HashMap::new();
    for (id_empresa, id_cultivo, variable, rango) in puestos.cultivos {
        de_cultivos.entry((id_empresa, id_cultivo)).or_default().push((variable, rango));
    }
    for ((id_empresa, id_cultivo), propios) in de_cultivos {
        let empresa = empresas.entry(id_empresa).or_default();
        let suyos = Arc::new(empresa.suyos.sobre(propios));
        empresa.cultivos.insert(id_cultivo, suyos);
    }
    let mut de_sensores: HashMap<(i64, i64), Vec<(Variable, Rango)>> =
        puestos.en_cultivo.keys().map(|quien| (*quien, Vec::new())).collect();
    for (id_empresa, id_sensor, variable, rango) in puestos.sensores {
        de_sensores.entry((id_empresa, id_sensor)).or_default().push((variable, rango));
    }
    for ((id_empresa, id_sensor), propios) in de_sensores {
        let cultivo = puestos.en_cultivo.get(&(id_empresa, id_sensor)).copied();
        empresas.entry(id_empresa).or_default().pon(id_sensor, cultivo, propios);
    }
    empresas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeviceId;

    #[test]
    fn the_closer_bound_holds_for_each_variable() {
        let hasta = |max| Rango { min: 0.0, max };
        let (temperatura, humedad, ph) = (Variable::TEMPERATURA, Variable::HUMEDAD_AIRE, Variable::PH_SUELO);
        let puestos = Puestos {
            empresas: vec![(1, 1, temperatura.clone(), hasta(30.0)), (1, 1, humedad.clone(), hasta(80.0))],
            cultivos: vec![(1, 5, temperatura.clone(), hasta(25.0)), (1, 5, ph.clone(), hasta(8.0))],
            sensores: vec![(1, 7, temperatura.clone(), hasta(20.0)), (1, 8, ph.clone(), hasta(9.0))],
            en_cultivo: [((1, 7), 5), ((1, 9), 5)].into(),
        };
        let vigentes = Vigentes { empresas: resuelve(puestos), ..Vigentes::default() };
        let maximos = |id_sensor, id_empresa| {
            let device_id = DeviceId::new("s").unwrap();
            let suyos = vigentes.de(&SensorRef { id_sensor, id_empresa, device_id });
            [&temperatura, &humedad, &ph].map(|v| suyos.de(v).unwrap().max.to_bits())
        };
        let f = |n: [f64; 3]| n.map(f64::to_bits);
        assert_eq!(maximos(7, 1), f([20.0, 80.0, 8.0]), "its own, its crop's, its empresa's");
        assert_eq!(maximos(8, 1), f([30.0, 80.0, 9.0]), "in no crop");
        assert_eq!(maximos(9, 1), f([25.0, 80.0, 8.0]), "nothing of its own");
        assert_eq!(maximos(10, 1), f([30.0, 80.0, 7.5]));
        assert_eq!(maximos(7, 2), f([35.0, 90.0, 7.5]), "another empresa");
    }
}
