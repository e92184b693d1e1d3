//! What PostgreSQL adds to the promises, and what it can do to them. That all the other scenarios hold on
//! it too is a matter of running them with `ALERTRACE_TEST_DATABASE=postgres`, as `scripts/test` does.

mod backup;
mod connections;
mod failures;
mod lease;
mod partitions;
mod pooler;
mod schema;
pub mod tls;
mod undecided;

use std::process::Command;

use crate::support::postgres::Cluster;
use crate::support::server::{Place, place};
use crate::support::{Server, postgres::Database};

/// Where a server has its data on a cluster of the test's own: a schema named as by default.
fn on(cluster: &Cluster) -> Place {
    vec![("DATABASE_URL", cluster.url())]
}

async fn start(place: Place) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Server::start_in(dir, place, |command| command).await
}

/// The schema of a server on the shared cluster, quoted for SQL.
fn schema(server: &Server) -> String {
    let (_, name) = &place(server.dir(), Database::Postgres)[1];
    name.clone()
}

/// Sends a signal to a server's own process.
fn signal(server: &Server, name: &str) {
    let pid = std::fs::read_to_string(server.data_dir().join("alertrace.lock")).expect("the lock file");
    assert!(Command::new("kill").args([name, pid.trim()]).status().expect("kill runs").success());
}
