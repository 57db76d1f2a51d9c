//! Listening, and what one connection may cost.

use super::HttpSettings;
use super::answer::{Desk, answer};
use crate::observe::Metrics;
use crate::supervisor::Input;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

/// Connections at a time; those beyond wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 16;
/// How long a request line and its headers may take to arrive.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may last, all in all.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most that is buffered of a request, in bytes; the least that hyper takes.
const LONGEST_HEAD: usize = 8192;
/// The most headers.
const MOST_HEADERS: usize = 32;
/// How long to wait when the kernel has no descriptors left.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens; questions go to `inputs`. To be called inside the runtime. Returns where it listens.
pub fn listen(settings: &HttpSettings, metrics: Metrics, inputs: mpsc::Sender<Input>) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(settings.address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let desk = Arc::new(Desk { metrics, inputs, token: settings.token.clone() });
    tokio::spawn(accept(listener, desk));
    Ok(address)
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    // One that takes longer is cut off: its place is for others.
                    let _ = tokio::time::timeout(PATIENCE, converse(stream, desk)).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn converse(stream: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&request, &desk).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "an HTTP connection ended early");
    }
}
