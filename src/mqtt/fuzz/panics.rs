//! A panic while one connection is served: it is that connection's end, and nobody else's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::timeout;

use super::bench::{self, Bench, PATIENCE, connect, expiry};
use super::packets::{Heard, Said};

/// A stream that panics when these bytes come.
struct Mined(DuplexStream);

const MINE: &[u8] = b"\xc0\x00boom";

impl AsyncRead for Mined {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.0).poll_read(cx, buf);
        assert!(!buf.filled()[before..].starts_with(MINE), "a mine, as it was meant to");
        read
    }
}

impl AsyncWrite for Mined {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A CONNECT with a will.
fn with_will(id: &str, properties: Vec<super::packets::Property>, clean: bool) -> Said {
    let mut said = connect(true, id, clean, properties);
    if let Said::Connect { will, .. } = &mut said {
        *will = Some((Vec::new(), b"wills".to_vec(), id.as_bytes().to_vec()));
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_its_own_session_with_its_will_and_no_other() {
    let bench = Bench::new().await;
    let mut watcher = bench.client(true, 4_096);
    watcher.say(&connect(true, "watcher", true, Vec::new())).await;
    assert!(matches!(watcher.hear().await, Ok(Some(Heard::Connack { code: 0, .. }))));
    let filters = vec![(b"wills".to_vec(), 1)];
    watcher.say(&Said::Subscribe { pid: 1, properties: Vec::new(), filters }).await;
    assert!(matches!(watcher.hear().await, Ok(Some(Heard::Ack { kind: 9, .. }))));

    // One session that is over with its connection, and one that is kept.
    for (id, properties) in [("one", Vec::new()), ("kept", vec![expiry(600)])] {
        let (ours, theirs) = tokio::io::duplex(4_096);
        let served = bench.serve(Mined(theirs));
        let mut victim = bench::Client::over(ours, true);
        victim.say(&with_will(id, properties, true)).await;
        assert!(matches!(victim.hear().await, Ok(Some(Heard::Connack { code: 0, .. }))));
        victim.write(MINE).await;
        // Its task ends as any other: what follows a connection has been done.
        timeout(PATIENCE, served).await.unwrap().unwrap();
        let heard = watcher.hear().await;
        let Ok(Some(Heard::Publish { topic, payload, .. })) = heard else { panic!("{heard:?}") };
        assert_eq!((&topic[..], &payload[..]), (&b"wills"[..], id.as_bytes()));
    }
    let names: Vec<_> = bench.broker.0.sessions.todas().iter().map(|s| s.clave.client_id.clone()).collect();
    assert!(names.len() == 2 && names.iter().all(|n| n == "watcher" || n == "kept"), "{names:?}");

    // What was kept is there for its owner.
    let mut back = bench.client(true, 4_096);
    back.say(&connect(true, "kept", false, Vec::new())).await;
    assert_eq!(back.hear().await, Ok(Some(Heard::Connack { present: true, code: 0 })));
    watcher.say(&Said::Ping).await;
    assert_eq!(watcher.hear().await, Ok(Some(Heard::Pong)));
    back.hang_up().await.unwrap();
    watcher.hang_up().await.unwrap();
    assert!(bench.broker.0.sessions.todas().is_empty());
    bench.end().await;
}
