//! Headless Chromium: the documentation's Authorize, and the front end's page on its own origin.

use std::time::Duration;

use tokio::process::Command;

use crate::support::{Server, client_dir};

async fn browser(what: &str) {
    let server = Server::start().await;
    let mut node = Command::new("node");
    node.env("NODE_PATH", client_dir().join("node_modules"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/browser.cjs"));
    node.args([what, &format!("http://{}", server.http)]).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(90), node.output()).await.expect("in time");
    let output = output.expect("node runs");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn somebody_signs_in_with_authorize_in_the_documentation_and_tries_an_operation() {
    browser("docs").await;
}

#[tokio::test]
async fn the_front_ends_page_registers_and_signs_in_in_every_shape_from_its_own_origin() {
    browser("front").await;
}
