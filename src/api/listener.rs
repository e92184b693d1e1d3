//! Connections of the HTTP port: how many at once, how long TLS and a request's head may take, how they end.
//!
//! A permit is taken before accept, so that a flood waits in the kernel and not in our file
//! descriptors. A connection that asks for nothing in time is closed. On the way down idle
//! connections close and requests under way finish; what is left after the grace is cut, because a
//! client that never ends its request must not keep the writer from draining.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use crate::limits::ByAddress;
use crate::tls::{Acceptor, Stream};

/// Connections at a time. WebSockets are counted by themselves: an upgraded connection leaves here.
const MAX_CONNECTIONS: usize = 2_048;
/// For the head of a request, from the accept or the end of the request before. Longer than a proxy
/// keeps an idle connection (nginx: 60 s), so that none is closed as a request comes down it.
const HEAD: Duration = Duration::from_secs(75);
/// For the TLS handshake. Two round trips, with room for a bad mobile connection.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Requests under way in one HTTP/2 connection, each with a body in memory.
const STREAMS: u32 = 32;
/// For a client to take some of what is written to it.
const WRITE: Duration = Duration::from_secs(30);
/// After an accept that failed (no file descriptors, for one): time for something to be closed.
const PAUSE: Duration = Duration::from_millis(100);

/// Whom a connection comes from: an extension of every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(IpAddr);

impl Peer {
    /// The client's address: the connection's, or what the proxy in front says, which writes the last
    /// entry of X-Forwarded-For and only that one.
    pub(super) fn client(self, headers: &HeaderMap, behind_proxy: bool) -> IpAddr {
        let said = headers.get_all("x-forwarded-for").iter().next_back().filter(|_| behind_proxy);
        let last = said.and_then(|v| v.to_str().ok()).and_then(|v| v.rsplit(',').next());
        last.and_then(|ip| ip.trim().parse::<IpAddr>().ok()).map_or(self.0, |ip| ip.to_canonical())
    }
}

/// What a listener is told.
pub(super) struct Limits {
    /// For requests under way when the server stops.
    pub(super) grace: Duration,
    /// Connections at a time from one address; no limit behind a proxy, which is one address.
    pub(super) per_address: Option<usize>,
}

/// Accepts until `stopping` returns, then ends within the grace.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<Acceptor>,
    routes: Router,
    Limits { grace, per_address }: Limits,
    stopping: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let places = ByAddress::new(per_address.unwrap_or(MAX_CONNECTIONS));
    let (graceful, cut, closing) =
        (GracefulShutdown::new(), CancellationToken::new(), CancellationToken::new());
    tokio::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            () = &mut stopping => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let Some(place) = places.enter(peer.0) else {
                    counter!("alertrace_http_connections_refused_total").increment(1);
                    continue;
                };
                let handshake = handshake(stream, tls.clone(), closing.clone());
                let (routes, watcher) = (routes.clone(), graceful.watcher());
                let cut = cut.clone();
                tokio::spawn(async move {
                    let _places = (permit, place);
                    let connection = async {
                        match handshake.await {
                            Some(Begun::Plain(stream)) => serve(stream, peer, routes, watcher).await,
                            Some(Begun::Tls(stream)) => serve(*stream, peer, routes, watcher).await,
                            None => {}
                        }
                    };
                    tokio::select! {
                        () = connection => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    closing.cancel();
    if timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off that did not end within {grace:?}");
    }
    cut.cancel();
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, Peer(peer.ip().to_canonical()), permit))
}

/// A connection that can ask.
enum Begun {
    Plain(TcpStream),
    Tls(Box<Stream>),
}

/// What has to happen before a request: TLS, where it is spoken. `None` when it does not come about,
/// or the server stops first.
async fn handshake(stream: TcpStream, tls: Option<Acceptor>, closing: CancellationToken) -> Option<Begun> {
    let Some(tls) = tls else { return Some(Begun::Plain(stream)) };
    let accepted = tokio::select! {
        () = closing.cancelled() => return None,
        accepted = timeout(HANDSHAKE, tls.accept(stream)) => accepted,
    };
    match accepted {
        Ok(Ok((stream, _))) => return Some(Begun::Tls(Box::new(stream))),
        // The client's: it speaks no TLS, or does not trust this server.
        Ok(Err(e)) => tracing::debug!(error = %e, "a TLS handshake on the HTTP port failed"),
        Err(_) => tracing::debug!("a TLS handshake on the HTTP port took too long"),
    }
    None
}

/// Serves HTTP on one connection.
async fn serve<S>(stream: S, peer: Peer, routes: Router, graceful: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The library's deadline begins once it knows the protocol; ours covers what comes before.
    let asked = Arc::new(AtomicBool::new(false));
    let note = asked.clone();
    let service = ServiceBuilder::new()
        .map_request(move |mut request: Request<Incoming>| {
            note.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            request
        })
        .service(routes);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .max_concurrent_streams(STREAMS)
        .enable_connect_protocol();
    // A client that takes none of its answer is gone: it would hold its place for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE));
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
    let connection = graceful.watch(connection.into_owned());
    let silent = async move {
        sleep(HEAD).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // An error is the client's: it went, or did not speak HTTP.
        _ = connection => {}
        () = silent => {}
    }
}
