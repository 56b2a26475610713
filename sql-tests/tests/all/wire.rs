//! The Postgres protocol by hand, for messages that no driver would send.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BOUND: Duration = Duration::from_secs(20);

/// A connection on which messages are written and read one by one.
pub struct Wire {
    stream: TcpStream,
}

/// A message from the server: its type and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: char,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse: `C` is the SQLSTATE, `M` the message.
    pub fn field(&self, wanted: char) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        let found = fields.filter(|field| !field.is_empty()).find(|field| char::from(field[0]) == wanted)?;
        Some(String::from_utf8_lossy(&found[1..]).into_owned())
    }

    /// The values of a DataRow; `None` is NULL.
    pub fn values(&self) -> Result<Vec<Option<Vec<u8>>>> {
        let mut rest = self.body.get(2..).context("a row has a count of values")?;
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>().context("a value has a length")?;
            let length = i32::from_be_bytes(*length);
            let (value, after) = match usize::try_from(length) {
                Err(_) => (None, after),
                Ok(length) => (Some(after.get(..length).context("a value is whole")?.to_vec()), &after[length..]),
            };
            values.push(value);
            rest = after;
        }
        Ok(values)
    }
}

impl Wire {
    /// A bare TCP connection.
    pub async fn open(server: SocketAddr) -> Result<Self> {
        Ok(Self { stream: TcpStream::connect(server).await? })
    }

    /// A connection that has been let in and is ready for a query.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let mut wire = Self::open(server).await?;
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        for text in ["user", "tester", "database", "freshet", ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        let length = u32::try_from(body.len() + 4)?.to_be_bytes();
        wire.write(&[&length[..], &body].concat()).await?;
        wire.until_ready().await?;
        Ok(wire)
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Sends one message; its length is added.
    pub async fn send(&mut self, kind: char, body: &[u8]) -> Result<()> {
        let kind = u8::try_from(kind)?;
        let length = u32::try_from(body.len() + 4)?.to_be_bytes();
        self.write(&[&[kind][..], &length, body].concat()).await
    }

    /// Parse, Bind with text parameters, Describe and Execute of the unnamed statement; no Sync.
    pub async fn extended(&mut self, sql: &str, parameters: &[&str], rows_max: i32) -> Result<()> {
        self.send('P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat()).await?;
        let mut bind = b"\0\0\0\0".to_vec();
        bind.extend_from_slice(&u16::try_from(parameters.len())?.to_be_bytes());
        for parameter in parameters {
            bind.extend_from_slice(&u32::try_from(parameter.len())?.to_be_bytes());
            bind.extend_from_slice(parameter.as_bytes());
        }
        bind.extend_from_slice(b"\0\0");
        self.send('B', &bind).await?;
        self.send('D', b"P\0").await?;
        self.execute(rows_max).await
    }

    /// Execute of the unnamed portal.
    pub async fn execute(&mut self, rows_max: i32) -> Result<()> {
        self.send('E', &[&b"\0"[..], &rows_max.to_be_bytes()].concat()).await
    }

    /// Reads one message; `None` if the server has closed the connection.
    pub async fn read(&mut self) -> Result<Option<Message>> {
        tokio::time::timeout(BOUND, self.read_message()).await.context("no message came from the server")?
    }

    async fn read_message(&mut self) -> Result<Option<Message>> {
        let mut head = [0; 5];
        if self.stream.read_exact(&mut head).await.is_err() {
            return Ok(None);
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length)?.checked_sub(4).context("a length counts itself")?];
        self.stream.read_exact(&mut body).await?;
        Ok(Some(Message { kind: char::from(head[0]), body }))
    }

    /// Reads up to and including ReadyForQuery.
    pub async fn until_ready(&mut self) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            let Some(message) = self.read().await? else { bail!("the server hung up after {messages:?}") };
            let ready = message.kind == 'Z';
            messages.push(message);
            if ready {
                return Ok(messages);
            }
        }
    }

    /// Waits until the server has closed the connection, and gives what it said before.
    pub async fn until_closed(&mut self) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        while let Some(message) = self.read().await? {
            messages.push(message);
        }
        Ok(messages)
    }
}

/// The types of messages, as one word.
pub fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|message| message.kind).collect()
}
