//! Messages from the client: framing and decoding.
//!
//! Each message is framed first: its length is checked against a bound before a byte of it is kept,
//! and decoding sees exactly its bytes. So a lie in a message can neither allocate nor shift the
//! stream. (pgwire's own decoder reads counts past the end of a message, and panics there.)

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use freshet_types::{SqlError, SqlState};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::limits;

/// A message of the client, after start-up.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Query(String),
    Parse {
        statement: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        rows_max: usize,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    /// CopyData, CopyDone and CopyFail outside of a COPY, and passwords that nobody asked for: ignored, as Postgres does.
    Ignored,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    pub parameter_formats: Vec<i16>,
    pub parameters: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Statement,
    Portal,
}

/// A message of the extended protocol makes the server skip to the next Sync when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
}

/// Why there is no message.
#[derive(Debug)]
pub enum ReadError {
    /// The client is gone.
    Closed,
    /// The stream makes no sense any more: tell and close.
    Broken(SqlError),
    /// This message makes no sense, the next may: tell and go on.
    Message(Protocol, SqlError),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Reads frames from a socket.
#[derive(Debug)]
pub struct Reader<R> {
    io: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// Whether the next message can be read without waiting.
    pub fn has_message(&self) -> bool {
        self.buffer.len() >= 5 && self.buffer.len() > length_at(&self.buffer, 1)
    }

    /// Waits for the next message. Cancel safe except within a message that is too large.
    pub async fn message(&mut self) -> Result<Message, ReadError> {
        self.fill(5).await?;
        let kind = self.buffer[0];
        let length = length_at(&self.buffer, 1);
        let carries_data = matches!(kind, b'Q' | b'P' | b'B' | b'd' | b'p');
        if !b"QPBDECHSXdcfpF".contains(&kind) || length < 4 {
            return Err(ReadError::Broken(violation(format!("invalid frontend message type {kind}"))));
        }
        let bytes_max = if carries_data { limits::MESSAGE_BYTES_CLAIMED_MAX } else { limits::SMALL_MESSAGE_BYTES_MAX };
        if length > bytes_max {
            return Err(ReadError::Broken(violation("invalid message length")));
        }
        if carries_data && length > limits::MESSAGE_BYTES_MAX {
            let message = format!("message of {length} bytes exceeds the limit of {}", limits::MESSAGE_BYTES_MAX);
            let error = SqlError::new(SqlState::ProgramLimitExceeded, message)
                .with_hint("split the statement, for example an INSERT into several");
            self.skip(1 + length).await?;
            return Err(ReadError::Message(protocol_of(kind), error));
        }
        self.fill(1 + length).await?;
        self.buffer.advance(5);
        let body = self.buffer.split_to(length - 4).freeze();
        decode(kind, body).map_err(|error| ReadError::Message(protocol_of(kind), error))
    }

    /// Waits for a packet without a type: what comes before and at start-up. Gives its body.
    pub async fn startup_packet(&mut self) -> Result<Bytes, ReadError> {
        self.fill(4).await?;
        let length = length_at(&self.buffer, 0);
        if !(8..=limits::STARTUP_BYTES_MAX).contains(&length) {
            return Err(ReadError::Broken(violation("invalid length of startup packet")));
        }
        self.fill(length).await?;
        self.buffer.advance(4);
        Ok(self.buffer.split_to(length - 4).freeze())
    }

    /// Returns when the client is gone. Reads ahead meanwhile, up to a bound; past it, waits for ever.
    pub async fn disconnected(&mut self) {
        while self.buffer.len() < limits::READ_AHEAD_BYTES_MAX {
            match self.io.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Reads until the buffer holds `length` bytes; it grows as they come, not as they are announced.
    async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            self.buffer.reserve(8192);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    async fn skip(&mut self, length: usize) -> io::Result<()> {
        let mut left = length;
        loop {
            let now = left.min(self.buffer.len());
            self.buffer.advance(now);
            left -= now;
            if left == 0 {
                return Ok(());
            }
            self.fill(1).await?;
        }
    }
}

/// Lengths are signed on the wire; a negative one becomes one beyond any bound.
fn length_at(buffer: &[u8], offset: usize) -> usize {
    let bytes = buffer[offset..offset + 4].try_into().expect("four bytes were read");
    usize::try_from(u32::from_be_bytes(bytes)).expect("32 bits fit")
}

fn protocol_of(kind: u8) -> Protocol {
    if matches!(kind, b'P' | b'B' | b'D' | b'E' | b'C') { Protocol::Extended } else { Protocol::Simple }
}

fn violation(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::ProtocolViolation, message)
}

fn decode(kind: u8, bytes: Bytes) -> Result<Message, SqlError> {
    let mut body = Body { bytes };
    Ok(match kind {
        b'Q' => Message::Query(body.text()?),
        b'P' => Message::Parse { statement: body.text()?, sql: body.text()?, types: body.counted(Body::u32)? },
        b'B' => Message::Bind(Bind {
            portal: body.text()?,
            statement: body.text()?,
            parameter_formats: body.counted(Body::i16)?,
            parameters: body.counted(Body::value)?,
            result_formats: body.counted(Body::i16)?,
        }),
        b'D' => Message::Describe { target: body.target()?, name: body.text()? },
        // Zero and negative mean "all rows".
        b'E' => Message::Execute { portal: body.text()?, rows_max: usize::try_from(body.u32()? as i32).unwrap_or(0) },
        b'C' => Message::Close { target: body.target()?, name: body.text()? },
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'F' => return Err(SqlError::unsupported("fastpath function calls are not supported")),
        _ => Message::Ignored,
    })
}

/// The rest of a message's body. Every read is checked.
pub struct Body {
    pub bytes: Bytes,
}

impl Body {
    fn need(&self, count: usize) -> Result<(), SqlError> {
        if self.bytes.len() < count { Err(violation("insufficient data left in message")) } else { Ok(()) }
    }

    fn u8(&mut self) -> Result<u8, SqlError> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    fn i16(&mut self) -> Result<i16, SqlError> {
        self.need(2)?;
        Ok(self.bytes.get_i16())
    }

    pub fn u32(&mut self) -> Result<u32, SqlError> {
        self.need(4)?;
        Ok(self.bytes.get_u32())
    }

    /// A string that ends with a zero byte.
    pub fn text(&mut self) -> Result<String, SqlError> {
        let end = self.bytes.iter().position(|byte| *byte == 0);
        let text = self.bytes.split_to(end.ok_or_else(|| violation("invalid string in message"))?);
        self.bytes.advance(1);
        String::from_utf8(text.to_vec()).map_err(|_| {
            SqlError::new(SqlState::CharacterNotInRepertoire, "invalid byte sequence for encoding \"UTF8\"")
        })
    }

    fn value(&mut self) -> Result<Option<Bytes>, SqlError> {
        let Ok(length) = usize::try_from(self.u32()? as i32) else {
            return Ok(None);
        };
        self.need(length)?;
        Ok(Some(self.bytes.split_to(length)))
    }

    fn counted<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        let count = usize::from(self.i16()? as u16);
        (0..count).map(|_| read(self)).collect()
    }

    fn target(&mut self) -> Result<Target, SqlError> {
        match self.u8()? {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            other => Err(violation(format!("invalid message subtype {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn messages_are_framed_one_after_the_other() {
        let bytes = [frame(b'Q', b"SELECT 1\0"), frame(b'S', b""), frame(b'E', b"p\0\0\0\0\x05")].concat();
        let mut reader = Reader::new(&bytes[..]);
        assert_eq!(reader.message().await.unwrap(), Message::Query("SELECT 1".to_owned()));
        assert!(reader.has_message());
        assert_eq!(reader.message().await.unwrap(), Message::Sync);
        assert_eq!(reader.message().await.unwrap(), Message::Execute { portal: "p".to_owned(), rows_max: 5 });
        assert!(matches!(reader.message().await, Err(ReadError::Closed)));
    }

    #[tokio::test]
    async fn a_lie_in_a_message_leaves_the_stream_in_step() {
        let bytes = [frame(b'P', b"s\0SELECT 1\0\xff\xff"), frame(b'S', b"")].concat();
        let mut reader = Reader::new(&bytes[..]);
        assert!(matches!(reader.message().await, Err(ReadError::Message(Protocol::Extended, _))));
        assert_eq!(reader.message().await.unwrap(), Message::Sync);
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_skipped() {
        let large = vec![b'x'; limits::MESSAGE_BYTES_MAX];
        let bytes = [frame(b'Q', &large), frame(b'S', b"")].concat();
        let mut reader = Reader::new(&bytes[..]);
        match reader.message().await {
            Err(ReadError::Message(Protocol::Simple, error)) => assert_eq!(error.state, SqlState::ProgramLimitExceeded),
            other => panic!("{other:?}"),
        }
        assert_eq!(reader.message().await.unwrap(), Message::Sync);
    }

    #[tokio::test]
    async fn garbage_breaks_the_stream() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &frame(b'X', &[0; 10_000])] {
            assert!(matches!(Reader::new(bytes).message().await, Err(ReadError::Broken(_))));
            assert!(matches!(Reader::new(bytes).startup_packet().await, Err(ReadError::Broken(_))));
        }
    }

    /// Any bytes at all: an answer, never a panic, never more memory than was sent.
    #[tokio::test]
    async fn no_bytes_panic() {
        let mut state = 42_u64;
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = Vec::new();
            for _ in 0..40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((state >> 33) as u8 & if state >> 63 == 0 { 0xff } else { 3 });
            }
            bytes[0] = b"QPBDECHSXF"[bytes[0] as usize % 10];
            bytes[1..4].fill(0);
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(_) | Err(ReadError::Message(..)) = reader.message().await {}
        }
    }
}
