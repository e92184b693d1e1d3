//! Who is who, and the one place that decides who may see what ([`Principal`], [`Directorio`]).
//!
//! MQTT's ACL, REST and the WebSocket all ask here. Accounts and tokens of people are the built-in
//! provider's ([`cuentas`], [`tokens`]); devices sign in with a token of their own ([`dispositivo`]).

pub mod cuentas;
mod directorio;
pub mod dispositivo;
pub mod llave;
pub mod password;
mod principal;
mod sello;
pub mod tokens;

pub use directorio::{Directorio, Revocado};
pub use llave::{Llave, Permiso};
pub use principal::{Principal, Usuario};
pub use sello::{Roto, Sello};
