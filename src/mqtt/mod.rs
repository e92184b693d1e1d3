//! The MQTT broker: 3.1.1 and 5.0 on one port.
//!
//! `listener` accepts, over TCP and TLS (`proxy` reads what a proxy in front says), whom `door` has a place
//! for; `handshake` signs in and opens a session of the registry (`sessions`, `session`); `connection` serves it; `acl` decides; `broker` holds what all share. The wire is
//! `protocol`'s (mqtt-protocol-core), the fan-out `router`'s (rumqttd). A sensor's readings go to
//! `ingest` before anything else and are acknowledged after their commit.

mod acl;
mod admission;
mod broker;
mod comandos;
mod connection;
mod door;
mod enlace;
mod estado;
mod first_packet;
#[cfg(test)]
mod fuzz;
mod handshake;
mod index;
mod listener;
mod mailbox;
mod opening;
mod protocol;
mod proxy;
mod publicacion;
mod reparto;
mod retained;
mod router;
mod session;
mod sessions;
mod site;
mod strict;
mod sys;
mod testamento;
mod throttle;
mod topic;

pub use broker::{Broker, Error, Parts, Settings};
