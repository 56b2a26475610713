//! Records of a system that carries bytes, into rows of a source: decoded fields, INCLUDE columns, rules.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Field;
use freshet_types::SqlError;

use super::rules::Rules;
use super::{Decoder, OnError, Rejects, decoder};
use crate::definition::{Column, IncludeKind, SourceDefinition};
use crate::source::{DeadLetter, SourceError};

/// A record as it arrived, borrowed from the client that received it.
#[derive(Debug, Clone, Default)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    /// As JSON text; only filled if [`RecordDecoder::wants_headers`].
    pub headers: Option<String>,
}

/// Turns records of one source into rows.
pub struct RecordDecoder {
    source: String,
    decoder: Box<dyn Decoder>,
    /// Where each column of the decoder goes in the schema.
    decoded: Vec<usize>,
    /// INCLUDE columns that are needed: where they go, and what they hold.
    includes: Vec<(usize, IncludeKind)>,
    rules: Rules,
    on_error: OnError,
}

/// What has become of some records.
#[derive(Debug)]
pub struct Decoded {
    pub rows: RecordBatch,
    pub dead_letters: Vec<DeadLetter>,
}

impl RecordDecoder {
    /// For the columns `columns` of the source's schema and those that its rules read. Values of the others are checked,
    /// so that the same records become rows whoever reads.
    pub fn new(definition: &SourceDefinition, columns: &[usize], on_error: OnError) -> Result<Self, SqlError> {
        let rules = Rules::new(definition, columns, on_error)?;
        let stored = definition.columns.iter().enumerate().filter(|(_, column)| column.computed.is_none());
        let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), column.nullable);
        let (stored, fields): (Vec<usize>, Vec<Field>) = stored.map(|(index, column)| (index, field(column))).unzip();
        let keeps = |field: usize| rules.needs(stored[field]);
        let first_include = definition.columns.len();
        let includes = definition.includes.iter().enumerate().map(|(i, include)| (first_include + i, include.kind));
        Ok(Self {
            source: definition.name.clone(),
            decoder: decoder(definition, &fields, &keeps, on_error)?,
            decoded: stored.iter().copied().filter(|index| rules.needs(*index)).collect(),
            includes: includes.filter(|(index, _)| rules.needs(*index)).collect(),
            rules,
            on_error,
        })
    }

    pub fn wants_headers(&self) -> bool {
        self.includes.iter().any(|(_, kind)| *kind == IncludeKind::Headers)
    }

    /// Every record becomes either a row or a dead letter; with `on_error = 'fail'` the first dead letter is an error.
    pub fn decode(&mut self, records: &[Record<'_>]) -> Result<Decoded, SourceError> {
        let payloads: Vec<Option<&[u8]>> = records.iter().map(|record| record.payload).collect();
        let mut rejects = Rejects::default();
        let decoded = self.decoder.decode(&payloads, &mut rejects);
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.rules.schema().fields().len()];
        for (index, values) in self.decoded.iter().zip(decoded) {
            columns[*index] = Some(values);
        }
        for (index, kind) in &self.includes {
            columns[*index] = Some(include_column(*kind, records));
        }
        let rows = self.rules.apply(columns, records.len(), &mut rejects)?;
        if self.on_error == OnError::Fail
            && let Some((position, reject)) = rejects.iter().next()
        {
            let Record { partition, offset, .. } = records[position];
            let message = format!("source \"{}\" stopped at a bad record: {}", self.source, reject.reason);
            return Err(SourceError::Record { message, partition, offset });
        }
        let dead_letters = rejects.iter().map(|(position, reject)| {
            let record = &records[position];
            DeadLetter {
                payload: record.payload.map(<[u8]>::to_vec),
                error: reject.reason.clone(),
                column: reject.column.clone(),
                partition: record.partition,
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
            }
        });
        Ok(Decoded { rows, dead_letters: dead_letters.collect() })
    }
}

fn include_column(kind: IncludeKind, records: &[Record<'_>]) -> ArrayRef {
    let records = records.iter();
    match kind {
        IncludeKind::Key => Arc::new(records.map(|record| record.key).collect::<BinaryArray>()),
        IncludeKind::Payload => Arc::new(records.map(|record| record.payload).collect::<BinaryArray>()),
        IncludeKind::Partition => Arc::new(Int32Array::from_iter_values(records.map(|record| record.partition))),
        IncludeKind::Offset => Arc::new(Int64Array::from_iter_values(records.map(|record| record.offset))),
        IncludeKind::Timestamp => {
            let micros = records.map(|record| record.timestamp_ms.and_then(|ms| ms.checked_mul(1000)));
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_data_type(kind.data_type()))
        }
        IncludeKind::Headers => Arc::new(records.map(|record| record.headers.as_deref()).collect::<StringArray>()),
    }
}
