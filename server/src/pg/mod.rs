//! The Postgres protocol: clients on TCP to sessions, and sessions' rows back to clients.
//!
//! Built on pgwire's messages, with a loop of its own: pgwire's handlers gather the rows of a result
//! before they are sent, and a SUBSCRIBE must be sent as its rows come. The parts, outermost first:
//! [`serve`] accepts, `startup` shakes hands, `connection` answers messages, `extended` keeps
//! prepared statements, `rows` streams results, `series` cuts endless ones for psql, `encode` and
//! `params` turn values into bytes and back, `frontend` and `backend` frame messages. It knows
//! nothing of SQL, and of the database only [`Session`].

mod backend;
mod cancel;
mod connection;
mod encode;
mod extended;
mod frontend;
pub mod limits;
mod params;
mod rows;
mod series;
mod startup;
mod types;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use freshet_types::{SqlError, SqlState};
use futures::FutureExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use backend::{Severity, Writer};
use cancel::Cancellations;
use connection::{Connection, Queries, Stop};
use frontend::{ReadError, Reader};
use startup::{Introduction, Opening};

use crate::session::Session;

pub use types::{WireType, format_type, name_of as type_name, wire_type};

/// Opens sessions for clients.
pub trait SessionFactory: Send + Sync + 'static {
    /// `parameters` are settings that the client sent along, as `application_name`.
    ///
    /// # Errors
    /// If the user, the database or a setting is refused; the client is told and disconnected.
    fn open(&self, user: &str, database: &str, parameters: &[(String, String)]) -> Result<Arc<Session>, SqlError>;

    /// From where clients may come.
    fn access(&self) -> Access {
        Access::LoopbackOnly
    }
}

/// From where clients may come without a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    #[default]
    LoopbackOnly,
    /// Trusts the network: the user said so.
    Anywhere,
}

struct Server {
    sessions: Arc<dyn SessionFactory>,
    access: Access,
    shutdown: CancellationToken,
    cancellations: Arc<Cancellations>,
    connections: Semaphore,
}

/// Serves clients until `shutdown`; returns when the last one is told goodbye.
pub async fn serve(listener: TcpListener, sessions: Arc<dyn SessionFactory>, shutdown: CancellationToken) {
    let server = Arc::new(Server {
        access: sessions.access(),
        sessions,
        shutdown: shutdown.clone(),
        cancellations: Arc::default(),
        connections: Semaphore::new(limits::CONNECTIONS_MAX),
    });
    let sockets = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX + limits::SOCKETS_SPARE_MAX));
    // The set owns the connections: they end with it, and their panics come back through it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Arc::clone(&sockets).try_acquire_owned() {
                    Ok(permit) => {
                        let server = Arc::clone(&server);
                        connections.spawn(async move {
                            server.client(stream, peer).await;
                            drop(permit);
                        });
                    }
                    Err(_) => tracing::warn!(%peer, "too many sockets: a client was turned away"),
                },
                Err(error) => {
                    // Mostly out of file descriptors: others must close before accepting makes sense again.
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next() => report(ended),
            () = shutdown.cancelled() => break,
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn configure(stream: &TcpStream) -> std::io::Result<()> {
    // Answers are gathered here already; waiting for more would only delay them.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(limits::KEEPALIVE_IDLE)
        .with_interval(limits::KEEPALIVE_INTERVAL)
        .with_retries(limits::KEEPALIVE_PROBES_MAX);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task ended badly");
    }
}

impl Server {
    async fn client(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = configure(&stream) {
            tracing::debug!(%peer, %error, "a client left at once");
            return;
        }
        let (read, write) = stream.into_split();
        let (mut reader, mut writer) = (Reader::new(read), Writer::new(write));
        let opening = tokio::select! {
            opening = timeout(limits::STARTUP_TIMEOUT, startup::opening(&mut reader, &mut writer)) => opening,
            () = self.shutdown.cancelled() => return,
        };
        match opening {
            Ok(Ok(Opening::Cancel { process_id, secret })) => self.cancellations.cancel(process_id, secret),
            Ok(Ok(Opening::Session(client))) => match self.admit(&client, peer) {
                Ok((session, _permit)) => self.converse(reader, writer, &client, session, peer).await,
                Err(error) => farewell(&mut writer, &error).await,
            },
            Ok(Err(ReadError::Closed)) => tracing::debug!(%peer, "a client left before it said who it is"),
            Ok(Err(ReadError::Broken(error) | ReadError::Message(_, error))) => {
                tracing::info!(%peer, %error, "a client was turned away");
                farewell(&mut writer, &error).await;
            }
            Err(_) => tracing::info!(%peer, "a client did not say who it is in time"),
        }
    }

    fn admit(
        &self,
        client: &Introduction,
        peer: SocketAddr,
    ) -> Result<(Arc<Session>, tokio::sync::SemaphorePermit<'_>), SqlError> {
        if self.access == Access::LoopbackOnly && !peer.ip().to_canonical().is_loopback() {
            tracing::warn!(%peer, user = client.user, "a client from another machine was refused");
            let message = format!("connections from {} are not allowed", peer.ip());
            let hint = "connect from the machine itself, or start the server with --trust-network";
            return Err(SqlError::new(SqlState::InvalidAuthorization, message).with_hint(hint));
        }
        let permit = self
            .connections
            .try_acquire()
            .map_err(|_| SqlError::new(SqlState::TooManyConnections, "sorry, too many clients already"))?;
        let session = self.sessions.open(&client.user, &client.database, &client.parameters)?;
        Ok((session, permit))
    }

    /// Serves one client to its end. A panic ends this connection alone.
    async fn converse(
        &self,
        reader: Reader<tokio::net::tcp::OwnedReadHalf>,
        mut writer: Writer<tokio::net::tcp::OwnedWriteHalf>,
        client: &Introduction,
        session: Arc<Session>,
        peer: SocketAddr,
    ) {
        let cancel = self.cancellations.register();
        let mut reported = startup::fixed_settings();
        reported.extend(session.reported_settings());
        startup::put_welcome(&mut writer, client, &reported, &cancel);
        let shutdown = self.shutdown.clone();
        let queries = Queries::default();
        let mut connection = Connection { reader, writer, session, cancel, shutdown, reported, queries };
        tracing::debug!(%peer, user = client.user, database = client.database, "connected");
        let connected = metrics::gauge!("freshet_connections");
        connected.increment(1.0);
        let ended = AssertUnwindSafe(connection.run()).catch_unwind().await;
        connected.decrement(1.0);
        tracing::debug!(%peer, "disconnected");
        let error = match ended {
            Ok(Ok(()) | Err(Stop::Gone)) => return,
            Ok(Err(Stop::Failed(error))) => error,
            Ok(Err(Stop::Shutdown)) => {
                let message = "terminating connection due to administrator command";
                SqlError::new(SqlState::AdminShutdown, message)
            }
            Err(_) => {
                tracing::error!(%peer, "a session panicked and was closed");
                SqlError::internal("the session failed by a fault of the server and was closed")
            }
        };
        // The session ends before the client hears of it.
        let Connection { mut writer, .. } = connection;
        farewell(&mut writer, &error).await;
    }
}

/// Tells a client why it is disconnected, if it listens.
async fn farewell(writer: &mut Writer<tokio::net::tcp::OwnedWriteHalf>, error: &SqlError) {
    writer.put_error(error, Severity::Fatal);
    let _ = timeout(limits::FAREWELL_TIMEOUT, async {
        if writer.flush().await.is_ok() {
            writer.close().await;
        }
    })
    .await;
}
