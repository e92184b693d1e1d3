//! Alertrace: one process that knows, and can prove, what a site's sensors said.
//!
//! The crate is laid out in floors (see `docs/ARCHITECTURE.md`). A module uses those below it,
//! never those above; a test reads the `use crate::` lines and fails on an import that climbs.
//!
//! | floor | modules |
//! |---|---|
//! | 6 | `cli` (and the binary's `main`) |
//! | 5 | `app`, `lifecycle` |
//! | 4 | `api`, `mqtt` |
//! | 3 | `ingest`, `mantenimiento` |
//! | 2 | `alertas`, `realtime`, `identity`, `historia` |
//! | 1 | `store`, `tls` |
//! | 0 | `domain`, `config`, `limits`, `telemetry` |

pub mod alertas;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod historia;
pub mod identity;
pub mod ingest;
pub mod lifecycle;
pub mod limits;
pub mod mantenimiento;
pub mod mqtt;
pub mod realtime;
pub mod store;
pub mod telemetry;
pub mod tls;
