//! What those do who misbehave, and what they achieved.

use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::common::{self, Client, Login, PUBLISH, SUBACK, source};
use super::{Shared, floods};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Connections that send a byte a second, before and after their CONNECT.
    Slow,
    /// Subscribers to everything that never read.
    Deaf,
    /// Connections without a CONNECT, from addresses all over the loopback network.
    Connects,
    /// A subscriber to everything, and much for it.
    Wildcard,
    /// Retained messages on ever new topics, as fast as they are taken.
    Retained,
    /// TLS handshakes that are begun and go no further.
    Handshakes,
    /// Bytes that are no MQTT: at once, behind a CONNECT, in place of TLS, within TLS.
    Garbage,
    /// Subscriptions to ever new filters, made and taken back as fast as they are answered.
    Filters,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "one byte a second",
            Self::Deaf => "subscribers that never read",
            Self::Connects => "connections without CONNECT",
            Self::Wildcard => "subscriber to everything",
            Self::Retained => "retained messages",
            Self::Handshakes => "TLS handshakes that stop",
            Self::Garbage => "garbage",
            Self::Filters => "filters that come and go",
        }
    }
}

/// What those who misbehave achieved.
#[derive(Default)]
pub struct Counts {
    pub made: AtomicU64,
    pub failed: AtomicU64,
    pub ended: AtomicU64,
    pub sent: AtomicU64,
    pub heard: AtomicU64,
    refused: AtomicU64,
}

pub fn count(n: &AtomicU64) {
    n.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub fn tell(&self, scenario: Scenario) -> String {
        let n = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (made, failed, ended) = (n(&self.made), n(&self.failed), n(&self.ended));
        let (sent, heard) = (n(&self.sent), n(&self.heard));
        match scenario {
            Scenario::Slow => format!("{made} connections, {ended} of them ended by the server"),
            Scenario::Deaf => format!("{sent} messages for them, {ended} of 3 ended by the server"),
            Scenario::Connects => format!(
                "{made} connections made, {failed} not (refused, or not answered in a second), {ended} ended \
                 by the server"
            ),
            Scenario::Wildcard => format!("{sent} messages sent, {heard} heard"),
            Scenario::Retained => format!("{sent} messages sent"),
            Scenario::Handshakes | Scenario::Garbage => format!(
                "{made} connections made, {failed} not (refused, or not answered in a second), {ended} ended \
                 by the server"
            ),
            Scenario::Filters => format!(
                "{sent} filters subscribed to and taken back, {} of them refused, {ended} connections ended by \
                 the server",
                n(&self.refused)
            ),
        }
    }
}

pub async fn attack(shared: Arc<Shared>, scenario: Scenario, stop: CancellationToken, counts: Arc<Counts>) {
    let mut tasks = JoinSet::new();
    match scenario {
        Scenario::Slow => {
            for n in 0..shared.args.slow as usize * 2 {
                let (shared, counts) = (shared.clone(), counts.clone());
                tasks.spawn(async move {
                    loop {
                        if trickle(&shared, n, &counts).await.is_err() {
                            count(&counts.ended);
                        }
                        sleep(Duration::from_millis(100)).await;
                    }
                });
            }
        }
        Scenario::Deaf => {
            let jwt = Some(("jwt".to_owned(), shared.token.clone()));
            for (n, user, filter) in [(0, None, "#"), (1, None, "#"), (2, jwt, "sensores/#")] {
                let (shared, counts) = (shared.clone(), counts.clone());
                tasks.spawn(async move {
                    let qos = u8::from(n != 0);
                    let login = Login { user, ..Login::anonymous(5, format!("deaf-{n}")) };
                    if deaf(shared.args.mqtt, &login, filter, qos).await.is_ok() {
                        count(&counts.ended);
                    }
                });
            }
            for n in 0..2 {
                tasks.spawn(publishes(shared.clone(), counts.clone(), format!("deaf/{n}"), 1_000, 512));
            }
        }
        Scenario::Connects => {
            tasks.spawn(floods::connects(shared.clone(), counts.clone()));
        }
        Scenario::Wildcard => {
            let (yo, suyos) = (shared.clone(), counts.clone());
            tasks.spawn(async move {
                if let Err(e) = hears_all(&yo, &suyos).await {
                    println!("the subscriber to everything was cut off: {e}");
                }
            });
            for n in 0..4 {
                let rate = shared.args.messages / 4;
                tasks.spawn(publishes(shared.clone(), counts.clone(), format!("all/{n}"), rate, 100));
            }
        }
        Scenario::Retained => {
            tasks.spawn(retains(shared.clone(), counts.clone()));
        }
        Scenario::Handshakes => {
            tasks.spawn(floods::handshakes(shared.clone(), counts.clone()));
        }
        Scenario::Garbage => {
            tasks.spawn(floods::garbage(shared.clone(), counts.clone()));
        }
        Scenario::Filters => {
            // One session ends with its connection, one is kept: its filters are in the store.
            for expiry in [0, 600] {
                let (shared, counts) = (shared.clone(), counts.clone());
                tasks.spawn(async move {
                    loop {
                        if let Err(e) = subscribes(&shared, expiry, &counts).await {
                            println!("whoever subscribes was cut off: {e}");
                            count(&counts.ended);
                        }
                        sleep(Duration::from_millis(100)).await;
                    }
                });
            }
        }
    }
    stop.cancelled().await;
    tasks.shutdown().await;
}

/// Says one byte a second: of its CONNECT, or, every second client, of a message after it.
async fn trickle(shared: &Shared, n: usize, counts: &Counts) -> Result<()> {
    let login = Login::anonymous(4, format!("slow-{n}"));
    // Below the limit of one address.
    let mut stream = common::dial(shared.args.mqtt, source(n / 500)).await?;
    count(&counts.made);
    let bytes = if n.is_multiple_of(2) {
        login.packet()
    } else {
        stream.write_all(&login.packet()).await?;
        common::publish(4, "slow/x", Some(1), false, false, &[b'x'; 4_096])
    };
    let mut answer = [0; 64];
    for byte in bytes {
        stream.write_all(&[byte]).await?;
        match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            Ok(Ok(0)) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(e)) => return Err(e),
            // An answer, which may well be there at once.
            Ok(Ok(_)) => sleep(Duration::from_secs(1)).await,
            Err(_) => {}
        }
    }
    Ok(())
}

/// Subscribes and reads nothing more. Answers when the server has ended the connection.
async fn deaf(to: SocketAddr, login: &Login, filter: &str, qos: u8) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    // So that the kernel does not read for it.
    socket.set_recv_buffer_size(4_096)?;
    socket.bind(SocketAddr::from((source(2), 0)))?;
    let stream = socket.connect(to).await?;
    let mut client = Client::sign_in(Box::new(stream), login).await?;
    client.subscribed(filter, qos).await?;
    // A ping now and then shows whether anybody is there, and keeps nothing from anybody.
    loop {
        sleep(Duration::from_secs(1)).await;
        if client.send(&[0xc0, 0]).await.is_err() {
            return Ok(());
        }
    }
}

/// Publishes with QoS 0 at a steady rate, in small bursts.
async fn publishes(shared: Arc<Shared>, counts: Arc<Counts>, topic: String, rate: u32, size: usize) {
    let login = Login::anonymous(4, format!("pub-{}", topic.replace('/', "-")));
    let Ok(mut client) = Client::plain(shared.args.mqtt, source(3), &login).await else { return };
    let message = client.publish(&topic, None, false, false, &vec![b'x'; size]);
    let begun = Instant::now();
    let (mut sent, mut clock) = (0, interval(Duration::from_millis(5)));
    loop {
        clock.tick().await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of messages")]
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64 - sent;
        let due = due.min(1_000);
        if client.send(&message.repeat(usize::try_from(due).unwrap_or(0))).await.is_err() {
            println!("the publisher of {topic} was cut off");
            return;
        }
        sent += due;
        counts.sent.fetch_add(due, Ordering::Relaxed);
    }
}

async fn hears_all(shared: &Shared, counts: &Counts) -> Result<()> {
    let login = Login::anonymous(4, "hears-all");
    let mut client = Client::plain(shared.args.mqtt, source(4), &login).await?;
    client.subscribed("#", 0).await?;
    loop {
        if client.next().await?.kind() == PUBLISH {
            count(&counts.heard);
        }
    }
}

/// Retains messages on ever new topics, as fast as the server reads them.
async fn retains(shared: Arc<Shared>, counts: Arc<Counts>) {
    let login = Login::anonymous(4, "retains");
    let Ok(mut client) = Client::plain(shared.args.mqtt, source(5), &login).await else { return };
    let mut n = 0_u64;
    loop {
        let mut burst = Vec::new();
        for _ in 0..50 {
            n += 1;
            burst.extend(client.publish(&format!("kept/{}", n % 50_000), None, true, false, &[b'x'; 100]));
        }
        if client.send(&burst).await.is_err() {
            println!("whoever retains was cut off");
            return;
        }
        counts.sent.fetch_add(50, Ordering::Relaxed);
    }
}

/// Subscribes to ever new filters of every kind and takes them back, as fast as that is answered.
async fn subscribes(shared: &Shared, expiry: u32, counts: &Counts) -> Result<()> {
    const AT_ONCE: u16 = 25;
    let login = Login { expiry, ..Login::anonymous(5, format!("filters-{expiry}")) };
    let mut client = Client::plain(shared.args.mqtt, source(6), &login).await?;
    let mut n = 0_u64;
    loop {
        let mut burst = Vec::new();
        for pid in 1..=AT_ONCE {
            n += 1;
            let filter = match n % 4 {
                0 => format!("churn/{n}"),
                1 => format!("churn/{n}/#"),
                2 => format!("churn/+/{n}/x"),
                _ => format!("$share/g{n}/churn/x"),
            };
            burst.extend(common::subscribe(5, pid, &filter, 1));
            burst.extend(common::unsubscribe(5, pid + AT_ONCE, &filter));
        }
        client.send(&burst).await?;
        for _ in 0..AT_ONCE * 2 {
            let answer = client.next().await?;
            if answer.kind() == SUBACK {
                count(&counts.sent);
                if answer.code(5) >= 0x80 {
                    count(&counts.refused);
                }
            }
        }
    }
}
