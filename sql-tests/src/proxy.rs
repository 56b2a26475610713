//! A TCP proxy that makes trouble: between a server and the object store on which it depends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait::let_pass;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Each piece is late.
    Delay(Duration),
    /// Connections end, those that there are and those that begin.
    Drop,
    /// Connections end, and each request on a new one is answered with status 503.
    Unavailable,
    /// Nothing goes on.
    Hang,
    /// Connections end on which a client says this.
    DropRequests(&'static str),
}

/// A running proxy. Dropping it ends all its connections.
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    _listener: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy before `target`, without faults.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (fault, watch) = watch::channel(Fault::None);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { return };
                        connections.spawn(serve(client, target, watch.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, fault, _listener: task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this is what happens.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn serve(client: TcpStream, target: SocketAddr, fault: watch::Receiver<Fault>) {
    let now = *fault.borrow();
    let outcome = match now {
        Fault::Drop => return,
        Fault::Unavailable => refuse(client).await,
        Fault::None | Fault::Delay(_) | Fault::Hang | Fault::DropRequests(_) => forward(client, target, fault).await,
    };
    // Either end may break off: that is the point.
    let _ = outcome;
}

/// Answers one request.
async fn refuse(mut client: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut piece).await? {
            0 => return Ok(()),
            length => request.extend_from_slice(&piece[..length]),
        }
    }
    let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let answer = format!(
        "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

async fn forward(client: TcpStream, target: SocketAddr, fault: watch::Receiver<Fault>) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut broken = fault.clone();
    tokio::select! {
        done = pump(from_client, to_server, Sender::Client, fault.clone()) => done,
        done = pump(from_server, to_client, Sender::Server, fault) => done,
        _ = broken.wait_for(|fault| matches!(fault, Fault::Drop | Fault::Unavailable)) => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    sender: Sender,
    mut fault: watch::Receiver<Fault>,
) -> std::io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut piece).await?;
        let now = *fault.borrow_and_update();
        match now {
            Fault::Delay(delay) => let_pass(delay).await,
            Fault::Hang => {
                // The proxy is gone if nobody changes it.
                let _ = fault.wait_for(|fault| *fault != Fault::Hang).await;
            }
            Fault::DropRequests(text)
                if sender == Sender::Client
                    && piece[..length].windows(text.len()).any(|found| found == text.as_bytes()) =>
            {
                return Ok(());
            }
            Fault::None | Fault::Drop | Fault::Unavailable | Fault::DropRequests(_) => {}
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
    }
}
