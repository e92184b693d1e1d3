//! From bytes to committed readings.
//!
//! [`decode`] turns a payload into readings and refusals; [`Ingest`] hands them to the one writer
//! (`batcher`), which commits what has arrived while the last commit was being synced and only
//! then answers. An answer means: on disk, as a reading or as a refusal.

mod batcher;
pub mod decode;
mod duda;
mod lote;
mod mensaje;
mod pulso;
mod reenvios;
mod reloj;
#[cfg(test)]
mod tests;
mod ultimas;
mod vigentes;
mod vivo;
mod writer;

pub use batcher::{Ajustes, Cerrado, Ingest, NoTomado, Salud};
pub use mensaje::{Cambios, Luego, Mensaje, Resolver, Resuelta, Resultado};
pub use reloj::RelojIncorrecto;
pub use ultimas::{Promedios, Ultimas};
pub use vigentes::Cambiados;
