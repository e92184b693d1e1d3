//! What an alert says to a person. Spanish: it is stored, and shown as it was said.

use crate::domain::{Rango, SensorRef, Variable};

/// (title, message, the bound that was crossed).
pub(super) fn de(
    sensor: &SensorRef,
    variable: &Variable,
    umbral: Rango,
    valor: f64,
) -> (String, String, f64) {
    let (nombre, device_id) = (variable.titulo(), &sensor.device_id);
    let con_unidad = |n: f64| match variable.unidad() {
        "" => numero(n),
        "%" => format!("{} %", numero(n)),
        unidad => format!("{} {unidad}", numero(n)),
    };
    if valor > umbral.max {
        let titulo = format!("{nombre} por encima del máximo en {device_id}");
        let mensaje = format!(
            "{nombre} marca {}; el máximo permitido es {}.",
            con_unidad(valor),
            con_unidad(umbral.max)
        );
        (titulo, mensaje, umbral.max)
    } else {
        let titulo = format!("{nombre} por debajo del mínimo en {device_id}");
        let mensaje = format!(
            "{nombre} marca {}; el mínimo permitido es {}.",
            con_unidad(valor),
            con_unidad(umbral.min)
        );
        (titulo, mensaje, umbral.min)
    }
}

/// At most two decimals, none that say nothing, a comma as people write it.
fn numero(n: f64) -> String {
    let texto = format!("{n:.2}");
    texto.trim_end_matches('0').trim_end_matches('.').replace('.', ",")
}

/// Title and text of the alert that says that the disk is nearly full; how full it is and where that
/// begins, in percent.
#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
pub(super) fn almacenamiento(usado: u64, maximo: u64) -> (String, String, f64, f64) {
    const UMBRAL: f64 = 90.0;
    let porcentaje = (100.0 * usado as f64 / maximo.max(1) as f64).round();
    let mensaje = format!(
        "El espacio asignado a la base de datos ({:.1} GB) está al {porcentaje} %. Se eliminan antes de plazo las \
         lecturas más antiguas de la empresa; sus valores por hora se conservan.",
        maximo as f64 / 1e9
    );
    ("Almacenamiento casi lleno".to_owned(), mensaje, porcentaje, UMBRAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeviceId;

    #[test]
    fn the_message_names_value_bound_and_unit() {
        let sensor = SensorRef { id_sensor: 1, id_empresa: 1, device_id: DeviceId::new("s1").unwrap() };
        let umbral = Rango { min: 10.0, max: 35.0 };
        let (titulo, mensaje, cruzado) = de(&sensor, &Variable::TEMPERATURA, umbral, 38.25);
        assert_eq!(titulo, "Temperatura por encima del máximo en s1");
        assert_eq!(mensaje, "Temperatura marca 38,25 °C; el máximo permitido es 35 °C.");
        assert_eq!(cruzado.to_bits(), 35f64.to_bits());
        let (_, mensaje, _) = de(&sensor, &Variable::HUMEDAD_AIRE, umbral, 9.5);
        assert_eq!(mensaje, "Humedad del aire marca 9,5 %; el mínimo permitido es 10 %.");
    }
}
