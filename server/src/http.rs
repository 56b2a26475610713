//! HTTP for operators: metrics, and whether the server lives and can be used.
//!
//! `GET /metrics` in Prometheus' text format; `GET /healthz` is 200 while the process works; `GET /readyz` is
//! 200 once recovery is done and until shutdown begins, 503 otherwise.

mod bounded;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::bounded::Bounded;
use crate::limits::{HTTP_CONNECTION_S_MAX, HTTP_CONNECTIONS_MAX};

/// What the handlers share.
#[derive(Clone)]
pub struct HttpState {
    pub metrics: PrometheusHandle,
    /// Set when recovery is done; cleared when shutdown begins.
    pub ready: Arc<AtomicBool>,
}

/// Starts to gather the metrics of this process.
///
/// # Errors
/// If it was done before.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new().install_recorder()
}

/// Serves until `shutdown`; requests under way are finished.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, state: HttpState, shutdown: CancellationToken) -> io::Result<()> {
    let age_max = Duration::from_secs(HTTP_CONNECTION_S_MAX);
    serve_on(Bounded::new(listener, HTTP_CONNECTIONS_MAX, age_max), state, shutdown).await
}

async fn serve_on(listener: Bounded, state: HttpState, shutdown: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

fn router(state: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(state)
}

async fn metrics(State(state): State<HttpState>) -> impl IntoResponse {
    // Drains what histograms gathered since the last scrape.
    state.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render())
}

async fn ready(State(state): State<HttpState>) -> (StatusCode, &'static str) {
    if state.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_as_the_state_is() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let state = HttpState { metrics: recorder.handle(), ready: Arc::default() };
        metrics::with_local_recorder(&recorder, || metrics::counter!("tries").increment(3));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = serve(listener, state.clone(), shutdown.clone());
        let client = async {
            assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
            state.ready.store(true, Ordering::Release);
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/metrics").await.contains("tries 3"));
            assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
            shutdown.cancel();
        };
        let (served, ()) = tokio::join!(server, client);
        served.unwrap();
    }

    #[tokio::test]
    async fn clients_that_never_finish_their_request_make_room_for_others() {
        let handle = PrometheusBuilder::new().build_recorder().handle();
        let state = HttpState { metrics: handle, ready: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = serve_on(Bounded::new(listener, 2, Duration::from_millis(100)), state, shutdown.clone());
        let client = async {
            let mut slow = Vec::new();
            for _ in 0..4 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
                slow.push(stream);
            }
            assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
            for mut stream in slow {
                // Closed, with or without an answer.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            shutdown.cancel();
        };
        let (served, ()) = tokio::join!(server, client);
        served.unwrap();
    }
}
