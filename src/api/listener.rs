//! Connections of the HTTP port: how many at once, how long TLS and a request's head may take, how they end.
//!
//! A permit is taken before accept, so that a flood waits in the kernel and not in our file
//! descriptors. A connection that asks for nothing in time is closed. On the way down idle
//! connections close and requests under way finish; what is left after the grace is cut, because a
//! client that never ends its request must not keep the writer from draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use crate::tls::{Acceptor, Stream};

/// Connections at a time. WebSockets are counted by themselves: an upgraded connection leaves here.
const MAX_CONNECTIONS: usize = 2_048;
/// For the head of a request, from the accept or the end of the request before. Longer than a proxy
/// keeps an idle connection (nginx: 60 s), so that none is closed as a request comes down it.
const HEAD: Duration = Duration::from_secs(75);
/// For the TLS handshake. Two round trips, with room for a bad mobile connection.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After an accept that failed (no file descriptors, for one): time for something to be closed.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stopping` returns, then ends within `grace`.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<Acceptor>,
    routes: Router,
    grace: Duration,
    stopping: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (graceful, cut, closing) =
        (GracefulShutdown::new(), CancellationToken::new(), CancellationToken::new());
    tokio::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            () = &mut stopping => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let handshake = handshake(stream, tls.clone(), closing.clone());
                let (routes, watcher) = (routes.clone(), graceful.watcher());
                let cut = cut.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    let connection = async {
                        match handshake.await {
                            Some(Begun::Plain(stream)) => serve(stream, routes, watcher).await,
                            Some(Begun::Tls(stream)) => serve(*stream, routes, watcher).await,
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
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
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
async fn serve<S>(stream: S, routes: Router, graceful: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The library's deadline begins once it knows the protocol; ours covers what comes before.
    let asked = Arc::new(AtomicBool::new(false));
    let note = asked.clone();
    let service = ServiceBuilder::new()
        .map_request(move |request: Request<Incoming>| {
            note.store(true, Ordering::Relaxed);
            request
        })
        .service(routes);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD).enable_connect_protocol();
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
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
