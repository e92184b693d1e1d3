//! Who is who, and the one place that decides who may see what ([`Principal`], [`Directorio`]).
//!
//! MQTT's ACL, REST and the WebSocket all ask here. Accounts and tokens of people are the built-in
//! provider's ([`cuentas`], [`tokens`]); devices sign in with a token of their own ([`dispositivo`]).

mod directorio;
pub mod dispositivo;
mod principal;

pub use directorio::{Directorio, Revocado};
pub use principal::{Principal, Usuario};
