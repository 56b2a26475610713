//! Before the first statement: TLS is declined, a cancel request is served, or a client introduces itself.

use std::collections::BTreeMap;

use bytes::BufMut;
use freshet_types::{SqlError, SqlState};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};
use tokio::io::{AsyncRead, AsyncWrite};

use super::backend::Writer;
use super::cancel::CancelGuard;
use super::frontend::{Body, ReadError, Reader};

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const PROTOCOL_MAJOR: u32 = 3;

/// What a socket turned out to want.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    Cancel { process_id: i32, secret: i32 },
    Session(Introduction),
}

/// Who a client says it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    pub user: String,
    pub database: String,
    /// Settings for the session, as `application_name`, with those in `options` taken apart.
    pub parameters: Vec<(String, String)>,
    minor_version: u32,
    /// Protocol extensions that the client would like, none of which exist here.
    extensions: Vec<String>,
}

/// Reads packets until the client says what it wants.
pub async fn opening<R, W>(reader: &mut Reader<R>, writer: &mut Writer<W>) -> Result<Opening, ReadError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // A client may ask for TLS and for GSS once each; more is a client that plays.
    for _ in 0..3 {
        let mut body = Body { bytes: reader.startup_packet().await? };
        let code = body.u32().map_err(ReadError::Broken)?;
        match code {
            SSL_REQUEST | GSS_REQUEST => {
                writer.buffer().put_u8(b'N');
                writer.flush().await?;
            }
            CANCEL_REQUEST => {
                let process_id = body.u32().map_err(ReadError::Broken)? as i32;
                let secret = body.u32().map_err(ReadError::Broken)? as i32;
                return Ok(Opening::Cancel { process_id, secret });
            }
            version if version >> 16 == PROTOCOL_MAJOR => {
                return introduction(body, version & 0xffff).map(Opening::Session).map_err(ReadError::Broken);
            }
            version => {
                let message = format!("unsupported frontend protocol {}.{}", version >> 16, version & 0xffff);
                return Err(ReadError::Broken(SqlError::new(SqlState::ProtocolViolation, message)));
            }
        }
    }
    Err(ReadError::Broken(SqlError::new(SqlState::ProtocolViolation, "too many negotiation requests")))
}

fn introduction(mut body: Body, minor_version: u32) -> Result<Introduction, SqlError> {
    let mut client = Introduction { minor_version, ..Introduction::default() };
    loop {
        let name = body.text()?;
        if name.is_empty() {
            break;
        }
        let value = body.text()?;
        match name.as_str() {
            "user" => client.user = value,
            "database" => client.database = value,
            "options" => client.parameters.extend(options(&value)),
            name if name.starts_with("_pq_.") => client.extensions.push(name.to_owned()),
            _ => client.parameters.push((name, value)),
        }
    }
    if client.user.is_empty() {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(SqlError::new(SqlState::InvalidAuthorization, message));
    }
    if client.database.is_empty() {
        client.database.clone_from(&client.user);
    }
    Ok(client)
}

/// The settings in `-c name=value --name=value`; a backslash keeps a space.
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => words.last_mut().expect("starts with one").extend(characters.next()),
            c if c.is_whitespace() => words.push(String::new()),
            c => words.last_mut().expect("starts with one").push(c),
        }
    }
    let words = words.iter().filter(|word| !word.is_empty() && *word != "-c");
    let settings = words.filter_map(|word| {
        let word = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word);
        word.split_once('=')
    });
    settings.map(|(name, value)| (name.replace('-', "_"), value.to_owned())).collect()
}

/// Tells a client that it is in: everything up to the first ReadyForQuery.
pub fn put_welcome<W: AsyncWrite + Unpin>(
    writer: &mut Writer<W>,
    client: &Introduction,
    settings: &BTreeMap<String, String>,
    cancel: &CancelGuard,
) {
    if client.minor_version > 0 || !client.extensions.is_empty() {
        writer.put(&PgWireBackendMessage::NegotiateProtocolVersion(NegotiateProtocolVersion::new(
            0,
            client.extensions.clone(),
        )));
    }
    writer.put(&PgWireBackendMessage::Authentication(Authentication::Ok));
    for (name, value) in settings {
        put_setting(writer, name, value);
    }
    let key = BackendKeyData::new(cancel.process_id, SecretKey::I32(cancel.secret));
    writer.put(&PgWireBackendMessage::BackendKeyData(key));
}

pub fn put_setting<W: AsyncWrite + Unpin>(writer: &mut Writer<W>, name: &str, value: &str) {
    writer.put(&PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name.to_owned(), value.to_owned())));
}

/// What drivers want to know before they send anything; the session's own settings win over these.
pub fn fixed_settings() -> BTreeMap<String, String> {
    let version = concat!("15.0 (Freshet ", env!("CARGO_PKG_VERSION"), ")");
    let settings = [
        ("server_version", version),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", ""),
        ("is_superuser", "on"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    async fn open(bytes: &[u8]) -> Result<Opening, ReadError> {
        opening(&mut Reader::new(bytes), &mut Writer::new(Vec::new())).await
    }

    #[tokio::test]
    async fn a_client_introduces_itself_after_tls_was_declined() {
        let body = b"user\0ann\0application_name\0psql\0options\0-c a=1 --b-c=x\\ y\0\0";
        let bytes = [packet(SSL_REQUEST, b""), packet(3 << 16, body)].concat();
        let Ok(Opening::Session(client)) = open(&bytes).await else { panic!("no session") };
        assert_eq!((client.user.as_str(), client.database.as_str()), ("ann", "ann"));
        let expected = [("application_name", "psql"), ("a", "1"), ("b_c", "x y")];
        assert_eq!(client.parameters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[tokio::test]
    async fn a_cancel_request_names_its_target() {
        let bytes = packet(CANCEL_REQUEST, &[0, 0, 0, 7, 0, 0, 0, 9]);
        assert_eq!(open(&bytes).await.unwrap(), Opening::Cancel { process_id: 7, secret: 9 });
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let cases = [
            packet(2 << 16, b""),
            packet(3 << 16, b"user\0ann"),
            packet(3 << 16, b"\0"),
            packet(CANCEL_REQUEST, &[1]),
            [packet(SSL_REQUEST, b""), packet(SSL_REQUEST, b""), packet(SSL_REQUEST, b"")].concat(),
        ];
        for bytes in cases {
            assert!(matches!(open(&bytes).await, Err(ReadError::Broken(_))));
        }
    }
}
