//! What an idle server keeps for itself. Of a debug build, so more than what is cited in `docs/benchmarks.md`, and half of
//! what it was when it kept what it had needed at its start, or had pages of 2 MiB.

use crate::support::Server;

#[tokio::test]
async fn an_idle_server_keeps_little_memory() {
    let server = Server::start().await;
    let pid = std::fs::read_to_string(server.data_dir().join("alertrace.lock")).expect("the lock file");
    let start = std::time::Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("it runs");
        let of_its_own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says");
        let kib: u64 = of_its_own.trim().trim_end_matches(" kB").parse().expect("a number");
        if kib < 18 * 1024 {
            return;
        }
        // Checking a password takes 19 MiB, which go with the thread that did it, ten seconds later.
        assert!(start.elapsed().as_secs() < 40, "{kib} KiB");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
