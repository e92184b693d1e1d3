//! Who is who, and the one place that decides who may see what ([`Principal`], [`Directorio`]).
//!
//! MQTT's ACL, REST and the WebSocket all ask here. Who keeps the passwords of people is a [`Provider`]: this
//! server ([`tokens`], [`password`]) or a Supabase project ([`supabase`]); [`cuentas`] is what both do. Devices sign
//! in with a token of their own ([`dispositivo`]).

mod clave;
pub mod correo;
pub mod cuentas;
mod directorio;
pub mod dispositivo;
mod jwks;
pub mod llave;
pub mod password;
mod principal;
mod provider;
pub mod prueba;
mod sello;
pub mod supabase;
pub mod tokens;
pub mod totp;

pub use directorio::{Directorio, Revocado};
pub use llave::{Llave, Permiso};
pub use principal::{Principal, Usuario};
pub use provider::Provider;
pub use prueba::Prueba;
pub use sello::{Roto, Sello};
