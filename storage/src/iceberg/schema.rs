//! Arrow types as Iceberg types, partitions of time, and bounds of columns in Iceberg's single-value form.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, SchemaRef, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use serde_json::{Value, json};

use super::metadata::{IcebergField, IcebergSchema, PartitionField, PartitionSpec};
use super::{Granularity, TableContent};
use crate::StorageError;

/// The key under which a field of an Arrow schema says its id, which Parquet writers put into the file.
pub const FIELD_ID_METADATA_KEY: &str = "PARQUET:field_id";

/// Longer texts have no bounds: an upper bound cannot be cut.
const BOUND_BYTES_MAX: usize = 64;

/// What is known of the values of a column of a file.
#[derive(Debug, Clone, Default)]
pub struct ColumnBounds {
    pub nulls: Option<u64>,
    /// In Iceberg's single-value form.
    pub(super) lower: Option<Vec<u8>>,
    pub(super) upper: Option<Vec<u8>>,
}

impl ColumnBounds {
    /// The bounds given by arrays of one value; those of types without an order that Iceberg knows, and NULL, say nothing.
    pub fn new(nulls: Option<u64>, least: &ArrayRef, greatest: &ArrayRef) -> Self {
        Self { nulls, lower: single_value(least), upper: single_value(greatest) }
    }
}

/// <https://iceberg.apache.org/spec/#binary-single-value-serialization>
fn single_value(value: &ArrayRef) -> Option<Vec<u8>> {
    if value.len() != 1 || value.is_null(0) {
        return None;
    }
    let bytes = match value.data_type() {
        DataType::Boolean => vec![u8::from(value.as_boolean().value(0))],
        DataType::Int8 => i32::from(value.as_primitive::<Int8Type>().value(0)).to_le_bytes().to_vec(),
        DataType::Int16 => i32::from(value.as_primitive::<Int16Type>().value(0)).to_le_bytes().to_vec(),
        DataType::Int32 => value.as_primitive::<Int32Type>().value(0).to_le_bytes().to_vec(),
        DataType::Int64 => value.as_primitive::<Int64Type>().value(0).to_le_bytes().to_vec(),
        DataType::Float32 => not_nan(f64::from(value.as_primitive::<Float32Type>().value(0)))
            .map(|_| value.as_primitive::<Float32Type>().value(0).to_le_bytes().to_vec())?,
        DataType::Float64 => not_nan(value.as_primitive::<Float64Type>().value(0))?.to_le_bytes().to_vec(),
        DataType::Date32 => value.as_primitive::<Date32Type>().value(0).to_le_bytes().to_vec(),
        DataType::Time64(TimeUnit::Microsecond) => {
            value.as_primitive::<Time64MicrosecondType>().value(0).to_le_bytes().to_vec()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            value.as_primitive::<TimestampMicrosecondType>().value(0).to_le_bytes().to_vec()
        }
        DataType::Decimal128(..) => shortest(value.as_primitive::<Decimal128Type>().value(0)),
        DataType::Utf8 => value.as_string::<i32>().value(0).as_bytes().to_vec(),
        DataType::Utf8View => value.as_string_view().value(0).as_bytes().to_vec(),
        _ => return None,
    };
    (bytes.len() <= BOUND_BYTES_MAX).then_some(bytes)
}

fn not_nan(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

/// Two's complement, big endian, in as few bytes as it takes.
fn shortest(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let redundant = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    bytes[redundant..].to_vec()
}

/// The schema with an id for each field, by which Iceberg finds columns in a file: what data files are to be written with.
pub fn with_field_ids(schema: &Schema) -> SchemaRef {
    let mut ids = Ids::new(schema.fields().len());
    let fields = schema.fields().iter().zip(1..).map(|(field, id)| numbered(field, id, &mut ids));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// Gives ids to the fields of nested types: columns have the first ones.
struct Ids(i32);

impl Ids {
    fn new(columns: usize) -> Self {
        Self(i32::try_from(columns).expect("columns are few"))
    }

    fn next(&mut self) -> i32 {
        self.0 += 1;
        self.0
    }
}

fn numbered(field: &Field, id: i32, ids: &mut Ids) -> Field {
    let data_type = match field.data_type() {
        DataType::List(item) => {
            let id = ids.next();
            DataType::List(Arc::new(numbered(item, id, ids)))
        }
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|field| {
                    let id = ids.next();
                    Arc::new(numbered(field, id, ids))
                })
                .collect(),
        ),
        other => other.clone(),
    };
    let metadata = HashMap::from([(FIELD_ID_METADATA_KEY.to_owned(), id.to_string())]);
    Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata)
}

/// Checks that Iceberg has a type for each column.
///
/// # Errors
/// If not; it names the column.
pub fn check_schema(schema: &Schema) -> Result<(), StorageError> {
    iceberg_schema(schema).map(|_| ())
}

pub(super) fn iceberg_schema(schema: &Schema) -> Result<IcebergSchema, StorageError> {
    let mut ids = Ids::new(schema.fields().len());
    let fields = schema.fields().iter().zip(1..).map(|(field, id)| {
        let data_type = iceberg_type(field.data_type(), &mut ids).ok_or_else(|| StorageError::Unsupported {
            what: format!("column \"{}\" of type {} in an Iceberg table", field.name(), field.data_type()),
        })?;
        Ok(IcebergField { id, name: field.name().clone(), required: !field.is_nullable(), data_type })
    });
    Ok(IcebergSchema { kind: "struct".into(), schema_id: 0, fields: fields.collect::<Result<_, StorageError>>()? })
}

fn iceberg_type(data_type: &DataType, ids: &mut Ids) -> Option<Value> {
    Some(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal128(precision, scale) => json!(format!("decimal({precision}, {scale})")),
        DataType::Date32 => json!("date"),
        DataType::Time64(TimeUnit::Microsecond) => json!("time"),
        DataType::Timestamp(TimeUnit::Microsecond, None) => json!("timestamp"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!("timestamptz"),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => json!("string"),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => json!("binary"),
        DataType::List(item) => {
            let id = ids.next();
            let element = iceberg_type(item.data_type(), ids)?;
            json!({"type": "list", "element-id": id, "element": element, "element-required": !item.is_nullable()})
        }
        DataType::Struct(fields) => {
            let mut told = Vec::with_capacity(fields.len());
            for field in fields {
                let id = ids.next();
                let data_type = iceberg_type(field.data_type(), ids)?;
                told.push(json!({"id": id, "name": field.name(), "required": !field.is_nullable(), "type": data_type}));
            }
            json!({"type": "struct", "fields": told})
        }
        _ => return None,
    })
}

/// The first id of a partition field, by Iceberg's habit.
const PARTITION_FIELD_ID: i32 = 1000;

pub(super) fn partition_spec(content: &TableContent) -> Result<PartitionSpec, StorageError> {
    let Some(partitioning) = content.partitioning else {
        return Ok(PartitionSpec { spec_id: 0, fields: Vec::new() });
    };
    let column = content.schema.field(partitioning.column);
    let is_time = match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => true,
        DataType::Date32 => partitioning.granularity != Granularity::Hour,
        _ => false,
    };
    if !is_time {
        let what = format!("partitions by column \"{}\" of type {}", column.name(), column.data_type());
        return Err(StorageError::Unsupported { what });
    }
    let transform = match partitioning.granularity {
        Granularity::Hour => "hour",
        Granularity::Day => "day",
        Granularity::Month => "month",
    };
    let field = PartitionField {
        source_id: i32::try_from(partitioning.column).expect("columns are few") + 1,
        field_id: PARTITION_FIELD_ID,
        name: format!("{}_{transform}", column.name()),
        transform: transform.to_owned(),
    };
    Ok(PartitionSpec { spec_id: 0, fields: vec![field] })
}

/// The type of a partition field in Avro.
pub(super) fn partition_avro_type(field: &PartitionField) -> Value {
    match field.transform.as_str() {
        "day" => json!({"type": "int", "logicalType": "date"}),
        _ => json!("int"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_take_as_few_bytes_as_they_can() {
        assert_eq!(shortest(0), [0]);
        assert_eq!(shortest(127), [127]);
        assert_eq!(shortest(128), [0, 128]);
        assert_eq!(shortest(-1), [255]);
        assert_eq!(shortest(-128), [128]);
        assert_eq!(shortest(-129), [255, 127]);
        assert_eq!(shortest(14_200), [0x37, 0x78]);
    }
}
