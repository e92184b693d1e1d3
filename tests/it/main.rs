//! Everything that a user would notice, over real sockets against the real binary.

mod alerts;
mod api;
mod architecture;
mod backup;
mod broker;
mod clients;
mod clock;
mod comandos;
mod crash;
mod cut_off;
mod demo;
mod estado;
mod history;
mod limits;
mod mqtt;
mod mqtt_clientes;
mod permissions;
mod postgres;
mod refusals;
mod retention;
mod sessions;
mod shutdown;
mod simulate;
mod store;
mod support;
mod tls;
