//! Messages to the client, gathered in one buffer and sent when it is full or when there is nothing else to do.

use std::io;

use bytes::BytesMut;
use freshet_types::SqlError;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::limits;

/// How bad an error is, as its S and V fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Notice,
    Error,
    /// The connection ends with it.
    Fatal,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Notice => "NOTICE",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// Writes messages to a socket.
///
/// Only whole messages enter the buffer, and bytes leave it as they are sent: a write that is dropped
/// halfway, because the statement was cancelled, leaves the stream in step.
#[derive(Debug)]
pub struct Writer<W> {
    io: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(io: W) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    pub fn put(&mut self, message: &PgWireBackendMessage) {
        let start = self.buffer.len();
        if let Err(error) = message.encode(&mut self.buffer) {
            // Only messages beyond the protocol's own bounds fail, as a column name of 2 GiB would.
            self.buffer.truncate(start);
            tracing::error!(%error, "a message to the client could not be encoded");
        }
    }

    pub fn put_error(&mut self, error: &SqlError, severity: Severity) {
        let fields = error_fields(error, severity);
        self.put(&match severity {
            Severity::Notice => PgWireBackendMessage::NoticeResponse(NoticeResponse::new(fields)),
            _ => PgWireBackendMessage::ErrorResponse(ErrorResponse::new(fields)),
        });
    }

    /// The buffer, to append whole messages to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Sends all that is written.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.buffer.is_empty() {
            if self.io.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.io.flush().await
    }

    /// Waits for the socket if much is written: this is where a slow client slows its statement.
    pub async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= limits::WRITE_BUFFER_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    pub async fn close(&mut self) {
        // A client that is gone already needs no goodbye.
        let _ = self.io.shutdown().await;
    }
}

fn error_fields(error: &SqlError, severity: Severity) -> Vec<(u8, String)> {
    let code = if severity == Severity::Notice { "00000" } else { error.state.code() };
    let mut fields = vec![
        (b'S', severity.name().to_owned()),
        (b'V', severity.name().to_owned()),
        (b'C', code.to_owned()),
        (b'M', without_zeros(&error.message)),
    ];
    fields.extend(error.detail.as_deref().map(|detail| (b'D', without_zeros(detail))));
    fields.extend(error.hint.as_deref().map(|hint| (b'H', without_zeros(hint))));
    fields.extend(error.position.map(|position| (b'P', position.to_string())));
    fields
}

/// A zero byte would end the field early and shift all that follows.
fn without_zeros(text: &str) -> String {
    text.replace('\0', "")
}

#[cfg(test)]
mod tests {
    use freshet_types::SqlState;

    use super::*;

    #[tokio::test]
    async fn errors_carry_all_their_fields() {
        let mut writer = Writer::new(Vec::new());
        let error = SqlError::new(SqlState::UndefinedTable, "relation \"x\" does not exist")
            .with_detail("d")
            .with_hint("h")
            .with_position(15);
        writer.put_error(&error, Severity::Error);
        writer.flush().await.unwrap();
        let expected = b"SERROR\0VERROR\0C42P01\0Mrelation \"x\" does not exist\0Dd\0Hh\0P15\0\0";
        assert_eq!(&writer.io[5..], &expected[..]);
    }
}
