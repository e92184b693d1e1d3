//! Connections in numbers, each of which comes to nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use super::Shared;
use super::common::{self, Login, Random, source};
use super::scenarios::{Counts, count};

/// Sockets that a flood may hold.
const MAX_OPEN: usize = 15_000;

/// Begins so many a second, for as long as it is polled.
async fn steadily<F>(rate: u32, counts: Arc<Counts>, one: impl Fn(u32) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (places, begun) = (Arc::new(Semaphore::new(MAX_OPEN)), Instant::now());
    let (mut made, mut clock) = (0_u32, interval(Duration::from_millis(5)));
    let mut tasks = JoinSet::new();
    loop {
        clock.tick().await;
        while tasks.try_join_next().is_some() {}
        let due = begun.elapsed().as_secs_f64() * f64::from(rate);
        while f64::from(made) < due {
            made += 1;
            let Ok(place) = places.clone().try_acquire_owned() else {
                count(&counts.failed);
                continue;
            };
            let one = one(made);
            tasks.spawn(async move {
                one.await;
                drop(place);
            });
        }
    }
}

/// A connection, from one of two thousand addresses that nobody else has; counted.
async fn dial(to: SocketAddr, n: u32, counts: &Counts) -> Option<TcpStream> {
    let from = source(1_000 + n as usize % 2_000);
    if let Ok(Ok(stream)) = timeout(Duration::from_secs(1), common::dial(to, from)).await {
        count(&counts.made);
        return Some(stream);
    }
    count(&counts.failed);
    None
}

/// Waits until the server has ended the connection, whatever it says before that.
async fn ends(stream: &mut (impl AsyncRead + Unpin), counts: &Counts) {
    let mut said = [0; 2_048];
    let end = async { while stream.read(&mut said).await.is_ok_and(|n| n > 0) {} };
    if timeout(Duration::from_secs(10), end).await.is_ok() {
        count(&counts.ended);
    }
}

/// Connects and says nothing, until the server ends it.
pub async fn connects(shared: Arc<Shared>, counts: Arc<Counts>) {
    let (to, counted) = (shared.args.mqtt, counts.clone());
    let one = move |n| {
        let counts = counted.clone();
        async move {
            if let Some(mut stream) = dial(to, n, &counts).await {
                ends(&mut stream, &counts).await;
            }
        }
    };
    steadily(shared.args.connects, counts, one).await;
}

/// Begins TLS: with all that a client says first, which the server answers with its signature, or with some of it.
/// Nothing follows.
pub async fn handshakes(shared: Arc<Shared>, counts: Arc<Counts>) {
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").expect("a name");
    let begun = ClientConnection::new(shared.tls.config().clone(), name);
    begun.expect("a client").write_tls(&mut hello).expect("into memory");
    let (to, counted, hello) = (shared.args.mqtts, counts.clone(), Arc::<[u8]>::from(hello));
    let one = move |n: u32| {
        let (counts, hello) = (counted.clone(), hello.clone());
        async move {
            let Some(mut stream) = dial(to, n, &counts).await else { return };
            let part = if n.is_multiple_of(2) { &hello[..] } else { &hello[..40] };
            // Ended in the middle of it, it is ended as well.
            let _ = stream.write_all(part).await;
            ends(&mut stream, &counts).await;
        }
    };
    steadily(shared.args.handshakes, counts, one).await;
}

/// Says what is no MQTT.
pub async fn garbage(shared: Arc<Shared>, counts: Arc<Counts>) {
    let (yo, counted) = (shared.clone(), counts.clone());
    let one = move |n: u32| {
        let (shared, counts) = (yo.clone(), counted.clone());
        async move {
            let within_tls = n % 4 == 3;
            let to = if n % 4 < 2 { shared.args.mqtt } else { shared.args.mqtts };
            let Some(mut stream) = dial(to, n, &counts).await else { return };
            let mut random = Random::new(n.into());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a byte at random")]
            let mut said: Vec<u8> = (0..1_024).map(|_| (random.unit() * 256.0) as u8).collect();
            if n % 4 == 1 {
                said.splice(..0, Login::anonymous(5, format!("garbage-{n}")).packet());
            }
            if within_tls {
                let name = ServerName::try_from("localhost").expect("a name");
                let Ok(mut stream) = shared.tls.connect(name, stream).await else { return };
                let _ = stream.write_all(&said).await;
                let _ = stream.flush().await;
                ends(&mut stream, &counts).await;
            } else {
                let _ = stream.write_all(&said).await;
                ends(&mut stream, &counts).await;
            }
        }
    };
    steadily(shared.args.garbage, counts, one).await;
}
