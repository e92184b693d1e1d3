//! The nouns of the site and the rules that hold for them wherever they appear.
//!
//! Nothing here does I/O or reads a clock: time comes in through [`Clock`], so that a test can run
//! a day in a millisecond. Nouns are Spanish as on the wire and in the tables (see the contract).

mod alerta;
mod clock;
mod device_id;
mod lectura;
mod resumen;
mod rol;
mod sensor;
mod timestamp;
mod variable;

pub use alerta::{Accion, Alerta, EstadoAlerta, Severidad};
pub use clock::{BUILD_DATE, Clock, ManualClock, SystemClock};
pub use device_id::{DeviceId, DeviceIdInvalido};
pub use lectura::{Lectura, Motivo, Rechazo, Valores};
pub use resumen::{Agregado, Resumen};
pub use rol::Rol;
pub use sensor::{Conexion, EstadoSensor, SensorRef};
pub use timestamp::Timestamp;
pub use variable::{Rango, Variable};
