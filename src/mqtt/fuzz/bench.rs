//! A broker of the test's own, and clients that reach it without a network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::packets::{self, Heard, Property, Said, Value};
use crate::domain::SystemClock;
use crate::identity::cuentas::{self, Cuentas};
use crate::identity::{Directorio, Prueba};
use crate::ingest::decode::Limites;
use crate::ingest::{self, Ingest};
use crate::mqtt::handshake::{self, Origen};
use crate::mqtt::{Broker, Parts, Settings};
use crate::realtime::{Clientes, Hub, Pedidos, Presencia, Rutas};
use crate::store::{Options, Store};

/// How long an answer may take before something is wrong.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The name of this runtime's threads: a panic on any of them is a finding.
const THREADS: &str = "mqtt-fuzz";

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A runtime whose panics are counted.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some(THREADS) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_name(THREADS).enable_all().build().unwrap()
}

/// Panics on the threads of every [`runtime`] until now.
pub(super) fn panics() -> usize {
    PANICS.load(Ordering::Relaxed)
}

pub(super) fn settings() -> Settings {
    Settings {
        open: true,
        open_refused: Vec::new(),
        legacy: false,
        max_connections: 100,
        max_connections_per_address: 100,
        connect_deadline: Duration::from_secs(5),
        handshake_deadline: Duration::from_secs(5),
        sign_in_failures: 5,
        sign_in_wait: Duration::from_secs(60),
        proxy_from: None,
        max_packet: 16 << 10,
        receive_maximum: 8,
        max_session_expiry: 3_600,
        max_sessions_per_client: 100,
        max_queued: 1_000,
        max_queued_bytes: 8 << 20,
        max_keep_alive: 0,
        max_messages_per_s: 0,
        max_bytes_per_s: 0,
        rate_patience: Duration::from_secs(60),
        sys_interval: Duration::from_secs(10),
        max_topic_levels: 16,
        max_topic_bytes: 512,
        max_subscriptions: 20,
        max_filters: 100_000,
        max_retained: 40,
        limites: Limites { adelanto: Duration::from_secs(60), retencion: Duration::from_secs(86_400) },
    }
}

/// See the module.
pub(super) struct Bench {
    pub(super) broker: Broker,
    /// Cancelled when the router dies.
    pub(super) dead: CancellationToken,
    stop: CancellationToken,
    drain: CancellationToken,
    writer: JoinHandle<()>,
    work: JoinHandle<()>,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(settings()).await
    }

    pub(super) async fn with(settings: Settings) -> Self {
        // In memory where the machine has it: what is looked for here is not in the disk.
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let options = Options { readers: 2, busy_timeout: Duration::from_secs(5) };
        let store = Store::open_sqlite(&dir.path().join("t.db"), options).await.unwrap();
        let clock = Arc::new(SystemClock);
        let (stop, drain, dead) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (hub, rutas, day) = (Hub::default(), Rutas::default(), Duration::from_secs(86_400));
        let how = ingest::Ajustes { cola: 64, lote: 50, rechazos_por_sensor: 10 };
        let (ingest, writer) =
            Ingest::start(store.clone(), (hub.clone(), rutas.clone()), clock.clone(), how, drain.clone())
                .await
                .unwrap();
        let accounts = cuentas::Ajustes {
            registro: cuentas::Registro::Closed,
            access: day,
            refresh: day,
            argon2_cola: 1,
            confirmar: false,
            por_cuenta: 0,
        };
        let directorio = Arc::new(Directorio::load(&store).await.unwrap());
        let parts = Parts {
            store: store.clone(),
            cuentas: Cuentas::new(store.clone(), clock.clone(), directorio.clone(), &[7; 32], accounts)
                .unwrap(),
            prueba: Prueba::new(&[7; 32]).unwrap(),
            directorio,
            ingest,
            hub,
            rutas,
            pedidos: Pedidos::default(),
            clientes: Arc::new(Clientes::default()),
            presencia: Arc::new(Presencia::default()),
            clock,
            settings,
        };
        let writer = tokio::spawn(writer);
        let broker = Broker::start(parts, stop.clone(), dead.clone()).await.unwrap();
        let work = tokio::spawn(broker.clone().run());
        Self { broker, dead, stop, drain, writer, work, store, _dir: dir }
    }

    /// Stops as the server does; every part has to end by itself.
    pub(super) async fn end(self) {
        let Self { broker, stop, drain, writer, work, store, .. } = self;
        stop.cancel();
        timeout(PATIENCE, work).await.expect("the broker's work ends").unwrap();
        timeout(PATIENCE, broker.closed()).await.expect("connections end");
        drain.cancel();
        timeout(PATIENCE, writer).await.expect("the writer ends").unwrap();
        store.close().await;
    }

    /// Serves a stream as a connection from loopback.
    pub(super) fn serve<S>(&self, stream: S) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let origin = Origen {
            via: "tcp",
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            local: true,
            plano: true,
            certificado: None,
            hasta: Instant::now() + self.broker.0.parts.settings.connect_deadline,
        };
        let silent = self.broker.0.puerta.callado();
        self.broker.0.conexiones.spawn(handshake::sirve(self.broker.clone(), stream, origin, silent))
    }

    /// A connection that has said nothing yet; so many bytes may be on their way.
    pub(super) fn client(&self, five: bool, room: usize) -> Client {
        let (stream, theirs) = tokio::io::duplex(room);
        let served = self.serve(theirs);
        Client { served: Some(served), ..Client::over(stream, five) }
    }
}

/// One connection.
pub(super) struct Client {
    stream: DuplexStream,
    pub(super) five: bool,
    input: BytesMut,
    aliases: HashMap<u16, Vec<u8>>,
    /// The server's task.
    served: Option<JoinHandle<()>>,
}

/// A CONNECT of a client that keeps to the book.
pub(super) fn connect(five: bool, id: &str, clean: bool, properties: Vec<Property>) -> Said {
    Said::Connect {
        five,
        flags: u8::from(clean) << 1,
        keep_alive: 0,
        properties: if five { properties } else { Vec::new() },
        id: id.as_bytes().to_vec(),
        will: None,
        user: None,
        password: None,
    }
}

/// A Session Expiry Interval.
pub(super) fn expiry(seconds: u32) -> Property {
    (0x11, Value::Number(seconds))
}

impl Client {
    /// One whose server's side is looked after elsewhere.
    pub(super) fn over(stream: DuplexStream, five: bool) -> Self {
        Self { stream, five, input: BytesMut::new(), aliases: HashMap::new(), served: None }
    }

    /// Writes; `false` when the server does not take it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> bool {
        timeout(Duration::from_millis(200), self.stream.write_all(bytes)).await.is_ok_and(|r| r.is_ok())
    }

    pub(super) async fn say(&mut self, said: &Said) -> bool {
        self.write(&said.bytes(self.five)).await
    }

    /// The next packet; `None` at the end of the connection.
    pub(super) async fn hear(&mut self) -> Result<Option<Heard>, String> {
        loop {
            if let Some(heard) = self.whole()? {
                return Ok(Some(heard));
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return Ok(None),
                Err(_) => return Err("the server says nothing".into()),
            }
        }
    }

    /// What has come, without waiting for more than is on its way. The second is true at the end of the connection.
    pub(super) async fn hear_now(&mut self) -> Result<(Vec<Heard>, bool), String> {
        let mut all = Vec::new();
        loop {
            while let Some(heard) = self.whole()? {
                all.push(heard);
            }
            match timeout(Duration::from_millis(1), self.stream.read_buf(&mut self.input)).await {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return Ok((all, true)),
                Err(_) => return Ok((all, false)),
            }
        }
    }

    /// The packet in front, with the topic that its alias stands for.
    fn whole(&mut self) -> Result<Option<Heard>, String> {
        let total = packets::total(&self.input).map_err(|()| "an endless length".to_owned())?;
        let Some(total) = total.filter(|n| *n <= self.input.len()) else { return Ok(None) };
        let packet = self.input.split_to(total);
        let mut heard =
            packets::hear(&packet, self.five).ok_or_else(|| format!("unreadable: {:x?}", &packet[..]))?;
        if let Heard::Publish { topic, alias: Some(alias), .. } = &mut heard {
            if topic.is_empty() {
                topic.clone_from(self.aliases.get(alias).ok_or("an alias without a topic")?);
            } else {
                self.aliases.insert(*alias, topic.clone());
            }
        }
        Ok(Some(heard))
    }

    /// Hangs up, and waits until the server is done with the connection; an error when its task panicked.
    pub(super) async fn hang_up(self) -> Result<(), String> {
        drop(self.stream);
        let Some(served) = self.served else { return Ok(()) };
        match timeout(PATIENCE, served).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(format!("a connection's task died: {e}")),
            Err(_) => Err("a connection's task does not end".into()),
        }
    }

    /// Hangs up and does not wait.
    pub(super) fn vanish(self) -> Option<JoinHandle<()>> {
        self.served
    }
}
