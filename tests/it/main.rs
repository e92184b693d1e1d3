//! Everything that a user would notice, over real sockets against the real binary.

mod alerts;
mod architecture;
mod clients;
mod crash;
mod refusals;
mod shutdown;
mod support;
