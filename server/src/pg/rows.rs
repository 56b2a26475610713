//! A statement's rows on their way to the client, with back-pressure and without delay.
//!
//! Rows leave in the order of their stream. Whenever the stream has to wait for its next batch, all
//! that is written is sent first: so the rows of a SUBSCRIBE arrive as they come. When the socket is
//! full, the stream is not polled: so nothing piles up.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use freshet_types::SqlError;
use futures::{FutureExt, StreamExt};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyDone, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, RowDescription};
use pgwire::messages::extendedquery::PortalSuspended;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use tokio::io::AsyncWrite;

use super::backend::Writer;
use super::connection::Stop;
use super::encode::{Format, encode_batch, put_copy_rows, put_data_row};
use super::limits;
use super::types::wire_type;
use crate::session::{Response, RowStream};

/// Whether a portal has more to give.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Finished,
    Suspended,
}

enum Shape {
    DataRows,
    CopyText,
}

/// A running statement that gives rows.
pub struct Cursor {
    stream: RowStream,
    schema: SchemaRef,
    formats: Vec<Format>,
    shape: Shape,
    tag: String,
    /// Rows that came and are not yet written.
    rest: Option<RecordBatch>,
    rows_sent: u64,
}

impl Cursor {
    pub fn new(schema: SchemaRef, stream: RowStream, tag: String, formats: &[Format]) -> Self {
        let formats = per_column(formats, schema.fields().len());
        Self { stream, schema, formats, shape: Shape::DataRows, tag, rest: None, rows_sent: 0 }
    }

    fn copy(schema: SchemaRef, stream: RowStream) -> Self {
        let formats = vec![Format::Text; schema.fields().len()];
        Self { stream, schema, formats, shape: Shape::CopyText, tag: "COPY".to_owned(), rest: None, rows_sent: 0 }
    }

    /// COPY has no RowDescription and knows no limit.
    pub fn is_copy(&self) -> bool {
        matches!(self.shape, Shape::CopyText)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Writes rows until the stream ends or `rows_max` are written; then says how it ended.
    pub async fn send<W>(&mut self, writer: &mut Writer<W>, rows_max: Option<usize>) -> Result<Progress, Stop>
    where
        W: AsyncWrite + Unpin,
    {
        let mut left = rows_max.unwrap_or(usize::MAX);
        while left > 0 {
            let Some(batch) = self.next_batch(writer).await? else {
                if self.is_copy() {
                    writer.put(&PgWireBackendMessage::CopyDone(CopyDone::new()));
                }
                writer.put(&complete(&self.command_tag()));
                return Ok(Progress::Finished);
            };
            let count = rows_at_once(&batch).min(left);
            if count < batch.num_rows() {
                self.rest = Some(batch.slice(count, batch.num_rows() - count));
            }
            self.put(writer, &batch.slice(0, count))?;
            self.rows_sent += count as u64;
            left -= count;
            writer.flush_if_full().await?;
        }
        writer.put(&PgWireBackendMessage::PortalSuspended(PortalSuspended::new()));
        Ok(Progress::Suspended)
    }

    /// Whether the rows go on for ever.
    pub fn is_endless(&self) -> bool {
        self.tag == "SUBSCRIBE"
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Writes all rows of a batch.
    pub async fn send_batch<W>(&mut self, writer: &mut Writer<W>, batch: &RecordBatch) -> Result<(), Stop>
    where
        W: AsyncWrite + Unpin,
    {
        let mut sent = 0;
        while sent < batch.num_rows() {
            let rest = batch.slice(sent, batch.num_rows() - sent);
            let count = rows_at_once(&rest);
            self.put(writer, &rest.slice(0, count))?;
            sent += count;
            writer.flush_if_full().await?;
        }
        self.rows_sent += sent as u64;
        Ok(())
    }

    /// The next batch with rows; sends what is written before it waits. Dropped while it waits, it loses nothing.
    pub async fn next_batch<W>(&mut self, writer: &mut Writer<W>) -> Result<Option<RecordBatch>, Stop>
    where
        W: AsyncWrite + Unpin,
    {
        if let Some(batch) = self.rest.take() {
            return Ok(Some(batch));
        }
        loop {
            // A stream that is always ready, of batches that are all empty, must not keep others from running.
            tokio::task::consume_budget().await;
            let next = match self.stream.next().now_or_never() {
                Some(next) => next,
                None => {
                    writer.flush().await?;
                    self.stream.next().await
                }
            };
            match next.transpose()? {
                Some(batch) if batch.num_rows() == 0 => {}
                next => return Ok(next),
            }
        }
    }

    fn put<W: AsyncWrite + Unpin>(&self, writer: &mut Writer<W>, batch: &RecordBatch) -> Result<(), SqlError> {
        if batch.num_columns() != self.formats.len() {
            return Err(SqlError::internal("a result has other columns than its schema"));
        }
        let columns = encode_batch(batch, &self.formats)?;
        match self.shape {
            Shape::DataRows => {
                for row in 0..batch.num_rows() {
                    put_data_row(writer.buffer(), &columns, row);
                }
            }
            Shape::CopyText => put_copy_rows(writer.buffer(), &columns, batch.num_rows()),
        }
        Ok(())
    }

    fn command_tag(&self) -> String {
        match self.tag.as_str() {
            "SELECT" | "FETCH" | "MOVE" | "COPY" | "INSERT 0" | "UPDATE" | "DELETE" | "MERGE" => {
                format!("{} {}", self.tag, self.rows_sent)
            }
            tag => tag.to_owned(),
        }
    }
}

/// About how many rows make a buffer's worth.
fn rows_at_once(batch: &RecordBatch) -> usize {
    let bytes: usize =
        batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or_default()).sum();
    let row_bytes = bytes / batch.num_rows().max(1) + 1;
    (limits::ROW_BYTES_ENCODED_MAX / row_bytes).clamp(1, limits::ROWS_ENCODED_MAX).min(batch.num_rows())
}

/// One format for all columns, one for each, or text when none is given: as Bind says it.
pub fn per_column(formats: &[Format], columns: usize) -> Vec<Format> {
    match formats {
        [] => vec![Format::Text; columns],
        [all] => vec![*all; columns],
        each => each.iter().copied().chain(std::iter::repeat(Format::Text)).take(columns).collect(),
    }
}

/// What an executed statement leaves to be written.
pub enum Outcome {
    Rows(Cursor),
    Message(PgWireBackendMessage),
}

/// The first part of an answer: for COPY its head is written here, for rows their description is not.
pub fn outcome<W>(writer: &mut Writer<W>, response: Response, formats: &[Format]) -> Outcome
where
    W: AsyncWrite + Unpin,
{
    match response {
        Response::Rows { schema, stream, tag } => Outcome::Rows(Cursor::new(schema, stream, tag, formats)),
        Response::CopyOut { schema, stream } => {
            let columns = i16::try_from(schema.fields().len()).expect("a result has at most 1600 columns");
            let head = CopyOutResponse::new(0, columns, vec![0; schema.fields().len()]);
            writer.put(&PgWireBackendMessage::CopyOutResponse(head));
            Outcome::Rows(Cursor::copy(schema, stream))
        }
        Response::Complete { tag } => Outcome::Message(complete(&tag)),
        Response::Empty => Outcome::Message(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())),
    }
}

pub fn complete(tag: &str) -> PgWireBackendMessage {
    PgWireBackendMessage::CommandComplete(CommandComplete::new(tag.to_owned()))
}

/// RowDescription, or NoData for a statement without rows.
pub fn description(schema: Option<&SchemaRef>, formats: &[Format]) -> PgWireBackendMessage {
    let Some(schema) = schema else {
        return PgWireBackendMessage::NoData(NoData::new());
    };
    let formats = per_column(formats, schema.fields().len());
    let fields = schema.fields().iter().zip(formats).map(|(field, format)| {
        let wire = wire_type(field);
        let code = i16::from(format == Format::Binary);
        FieldDescription::new(field.name().replace('\0', ""), 0, 0, wire.oid, wire.size, wire.modifier, code)
    });
    PgWireBackendMessage::RowDescription(RowDescription::new(fields.collect()))
}
