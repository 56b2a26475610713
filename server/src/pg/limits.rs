//! The bounds of the Postgres protocol: what one client may take of the server.

use std::time::Duration;

/// Clients at work at once. Past it a client is told 53300.
pub const CONNECTIONS_MAX: usize = 256;

/// Sockets open beyond [`CONNECTIONS_MAX`]: clients still shaking hands, cancelling, or being told 53300.
/// Past it a socket is closed without a word.
pub const SOCKETS_SPARE_MAX: usize = 64;

/// From the first byte to the end of the start-up. Past it the socket is closed.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that says nothing for [`KEEPALIVE_IDLE`] is asked by TCP whether it is still there, and again every
/// [`KEEPALIVE_INTERVAL`]. After [`KEEPALIVE_PROBES_MAX`] questions without an answer its machine is taken for dead, and
/// its session ends.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub const KEEPALIVE_PROBES_MAX: u32 = 6;

/// A start-up packet, as in Postgres. Past it the socket is closed.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// A message that carries SQL, parameters or COPY data. Past it the message is skipped and the client told 54000.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What any message may claim to be, as in Postgres. Past it the stream makes no sense, and the connection is closed.
pub const MESSAGE_BYTES_CLAIMED_MAX: usize = (1 << 30) - 1;

/// Any other message. Past it the stream makes no sense, and the connection is closed.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 10_000;

/// Read ahead while a statement runs, to notice a client that goes away. Past it the client waits.
pub const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// Written but not yet sent. Past it the statement waits for the socket.
pub const WRITE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Rows encoded at once, and about how many bytes of them.
pub const ROWS_ENCODED_MAX: usize = 1024;
pub const ROW_BYTES_ENCODED_MAX: usize = 256 << 10;

/// Prepared statements or portals of one connection. Past it the client is told 53400.
pub const STATEMENTS_MAX: usize = 10_000;

/// To tell a client goodbye at shutdown, or why it is refused. Past it the socket is closed.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two results of a series at the least. What comes sooner is gathered, so that people can read along.
pub const SERIES_INTERVAL: Duration = Duration::from_secs(1);
