//! A result without an end, as a series of results that end.
//!
//! psql prints a result once it is complete, and only when it knows whether another one follows (from its version 15
//! on; older ones print the last). So for psql a SUBSCRIBE is answered with one complete result after the other,
//! each of the rows that have come meanwhile, and each followed by the answer to an empty statement, which psql shows
//! as nothing.

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::EmptyQueryResponse;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, timeout_at};

use super::backend::Writer;
use super::connection::Stop;
use super::limits::SERIES_INTERVAL;
use super::rows::{Cursor, complete, description};

/// Writes all rows of the cursor, which may never be over. Nothing is written while there are none.
pub async fn send_series<W>(cursor: &mut Cursor, writer: &mut Writer<W>) -> Result<(), Stop>
where
    W: AsyncWrite + Unpin,
{
    // What comes after a pause, as the first rows do, is shown at once.
    let mut not_before = Instant::now();
    while let Some(batch) = cursor.next_batch(writer).await? {
        writer.put(&description(Some(cursor.schema()), &[]));
        cursor.send_batch(writer, &batch).await?;
        // Rows may come faster than they are sent; then the result must end as well.
        let at_latest = Instant::now() + SERIES_INTERVAL;
        while Instant::now() < at_latest {
            match timeout_at(not_before, cursor.next_batch(writer)).await {
                Ok(Ok(Some(batch))) => cursor.send_batch(writer, &batch).await?,
                Ok(Ok(None)) | Err(_) => break,
                Ok(Err(stop)) => return Err(stop),
            }
        }
        writer.put(&complete(cursor.tag()));
        writer.put(&PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()));
        not_before = Instant::now() + SERIES_INTERVAL;
    }
    Ok(())
}
