//! Everything that a user would notice, over real sockets against the real binary.

mod alerts;
mod api;
mod architecture;
mod broker;
mod clients;
mod crash;
mod cut_off;
mod demo;
mod mqtt;
mod refusals;
mod shutdown;
mod store;
mod support;
