//! Which Postgres type a column travels as: Arrow types and fields on one side, type OIDs on the other.
//!
//! The OIDs are those of `pg_type.dat`, which clients have built in. A type without a counterpart
//! travels as `text`, so that no query fails only because its result cannot be shown.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

/// A type's object id, as in `pg_type`.
pub type Oid = u32;

pub const BOOL: Oid = 16;
pub const BYTEA: Oid = 17;
pub const CHAR: Oid = 18;
pub const NAME: Oid = 19;
pub const INT8: Oid = 20;
pub const INT2: Oid = 21;
pub const INT4: Oid = 23;
pub const TEXT: Oid = 25;
pub const OID: Oid = 26;
pub const JSON: Oid = 114;
pub const FLOAT4: Oid = 700;
pub const FLOAT8: Oid = 701;
pub const UNKNOWN: Oid = 705;
pub const BPCHAR: Oid = 1042;
pub const VARCHAR: Oid = 1043;
pub const DATE: Oid = 1082;
pub const TIME: Oid = 1083;
pub const TIMESTAMP: Oid = 1114;
pub const TIMESTAMPTZ: Oid = 1184;
pub const INTERVAL: Oid = 1186;
pub const NUMERIC: Oid = 1700;
pub const REGPROC: Oid = 24;
pub const REGCLASS: Oid = 2205;
pub const REGTYPE: Oid = 2206;
pub const RECORD: Oid = 2249;
pub const UUID: Oid = 2950;
pub const JSONB: Oid = 3802;
pub const REGNAMESPACE: Oid = 4089;
pub const RECORD_ARRAY: Oid = 2287;

/// Each type that has an array type here: element, array.
const ARRAYS: &[(Oid, Oid)] = &[
    (BOOL, 1000),
    (BYTEA, 1001),
    (CHAR, 1002),
    (NAME, 1003),
    (INT2, 1005),
    (INT4, 1007),
    (TEXT, 1009),
    (BPCHAR, 1014),
    (VARCHAR, 1015),
    (INT8, 1016),
    (FLOAT4, 1021),
    (FLOAT8, 1022),
    (OID, 1028),
    (TIMESTAMP, 1115),
    (DATE, 1182),
    (TIME, 1183),
    (TIMESTAMPTZ, 1185),
    (INTERVAL, 1187),
    (NUMERIC, 1231),
    (JSON, 199),
    (UUID, 2951),
    (JSONB, 3807),
    (RECORD, RECORD_ARRAY),
];

/// The zone of a `timestamptz`: values are instants, shown in UTC.
pub const UTC: &str = "+00:00";

pub fn array_of(element: Oid) -> Option<Oid> {
    ARRAYS.iter().find(|(e, _)| *e == element).map(|(_, array)| *array)
}

pub fn element_of(array: Oid) -> Option<Oid> {
    ARRAYS.iter().find(|(_, a)| *a == array).map(|(element, _)| *element)
}

/// A type as RowDescription tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireType {
    pub oid: Oid,
    /// Bytes of a value, or -1 if they vary.
    pub size: i16,
    /// For `numeric`, its precision and scale; else -1.
    pub modifier: i32,
}

impl WireType {
    pub fn is_array(self) -> bool {
        element_of(self.oid).is_some()
    }

    /// Precision and scale of a `numeric` that has them.
    pub fn numeric(self) -> Option<(i32, i32)> {
        (self.oid == NUMERIC && self.modifier >= 4).then(|| ((self.modifier - 4) >> 16, (self.modifier - 4) & 0xffff))
    }

    /// The name in `pg_type.typname`.
    pub fn internal_name(self) -> String {
        internal_name(self.oid)
    }
}

fn internal_name(oid: Oid) -> String {
    if let Some(element) = element_of(oid) {
        return format!("_{}", internal_name(element));
    }
    match oid {
        BOOL => "bool".to_owned(),
        INT2 => "int2".to_owned(),
        INT4 => "int4".to_owned(),
        INT8 => "int8".to_owned(),
        FLOAT4 => "float4".to_owned(),
        FLOAT8 => "float8".to_owned(),
        TIME => "time".to_owned(),
        TIMESTAMP => "timestamp".to_owned(),
        TIMESTAMPTZ => "timestamptz".to_owned(),
        VARCHAR => "varchar".to_owned(),
        BPCHAR => "bpchar".to_owned(),
        other => name_of(other),
    }
}

/// A type as it is written in SQL, with its modifier: `format_type` of Postgres.
pub fn format_type(oid: Oid, modifier: i32) -> String {
    match (WireType { oid, size: -1, modifier }).numeric() {
        Some((precision, scale)) => format!("numeric({precision},{scale})"),
        None => name_of(oid),
    }
}

/// The type that a column travels as.
pub fn wire_type(field: &Field) -> WireType {
    let oid = oid_of_field(field);
    let modifier = match field.data_type() {
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s)
            if *s >= 0 =>
        {
            ((i32::from(*p) << 16) | i32::from(*s)) + 4
        }
        _ => -1,
    };
    WireType { oid, size: size_of_type(oid), modifier }
}

/// As [`oid_of`], and heeds what a field's metadata tells: catalog OIDs, JSON, UUID.
pub fn oid_of_field(field: &Field) -> Oid {
    if let (DataType::Int32, Some(kind)) = (field.data_type(), field.metadata().get("pg.oid_alias")) {
        return match kind.as_str() {
            "regproc" => REGPROC,
            "regclass" => REGCLASS,
            "regtype" => REGTYPE,
            "regnamespace" => REGNAMESPACE,
            _ => OID,
        };
    }
    match (field.data_type(), field.metadata().get("ARROW:extension:name").map(String::as_str)) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Some("arrow.json")) => JSON,
        (DataType::FixedSizeBinary(16), Some("arrow.uuid")) => UUID,
        (DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _), _) => array_oid(item),
        (data_type, _) => oid_of(data_type),
    }
}

/// Nested lists are arrays of several dimensions, which have the type of one.
fn array_oid(item: &Field) -> Oid {
    let element = oid_of_field(item);
    if element_of(element).is_some() { element } else { array_of(element).unwrap_or(TEXT) }
}

/// The Postgres type of an Arrow type.
pub fn oid_of(data_type: &DataType) -> Oid {
    match data_type {
        DataType::Boolean => BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => INT2,
        DataType::UInt16 | DataType::Int32 => INT4,
        DataType::UInt32 => OID,
        DataType::Int64 => INT8,
        DataType::UInt64 => NUMERIC,
        DataType::Float16 | DataType::Float32 => FLOAT4,
        DataType::Float64 => FLOAT8,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            NUMERIC
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => BYTEA,
        DataType::Date32 | DataType::Date64 => DATE,
        DataType::Time32(_) | DataType::Time64(_) => TIME,
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => array_oid(item),
        DataType::Struct(_) => RECORD,
        DataType::Dictionary(_, value) => oid_of(value),
        _ => TEXT,
    }
}

/// The Arrow type that a parameter of a Postgres type has when it arrives; `None` if the type is open or unknown.
pub fn data_type_of(oid: Oid) -> Option<DataType> {
    Some(match oid {
        BOOL => DataType::Boolean,
        INT2 => DataType::Int16,
        INT4 => DataType::Int32,
        INT8 | OID => DataType::Int64,
        FLOAT4 => DataType::Float32,
        FLOAT8 => DataType::Float64,
        NUMERIC => DataType::Decimal128(38, 10),
        TEXT | VARCHAR | BPCHAR | NAME | CHAR | JSON | JSONB | UUID => DataType::Utf8,
        BYTEA => DataType::Binary,
        DATE => DataType::Date32,
        TIME => DataType::Time64(TimeUnit::Microsecond),
        TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        array => DataType::new_list(data_type_of(element_of(array)?)?, true),
    })
}

/// The name that an error message gives to a type.
pub fn name_of(oid: Oid) -> String {
    if let Some(element) = element_of(oid) {
        return format!("{}[]", name_of(element));
    }
    match oid {
        BOOL => "boolean",
        BYTEA => "bytea",
        INT2 => "smallint",
        INT4 => "integer",
        INT8 => "bigint",
        OID => "oid",
        FLOAT4 => "real",
        FLOAT8 => "double precision",
        NUMERIC => "numeric",
        JSON => "json",
        JSONB => "jsonb",
        VARCHAR => "character varying",
        BPCHAR => "character",
        DATE => "date",
        TIME => "time without time zone",
        TIMESTAMP => "timestamp without time zone",
        TIMESTAMPTZ => "timestamp with time zone",
        INTERVAL => "interval",
        UUID => "uuid",
        RECORD => "record",
        CHAR => "\"char\"",
        NAME => "name",
        REGPROC => "regproc",
        REGCLASS => "regclass",
        REGTYPE => "regtype",
        REGNAMESPACE => "regnamespace",
        _ => "text",
    }
    .to_owned()
}

fn size_of_type(oid: Oid) -> i16 {
    match oid {
        BOOL | CHAR => 1,
        INT2 => 2,
        INT4 | OID | FLOAT4 | DATE | REGPROC | REGCLASS | REGTYPE | REGNAMESPACE => 4,
        INT8 | FLOAT8 | TIME | TIMESTAMP | TIMESTAMPTZ => 8,
        INTERVAL | UUID => 16,
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn nested_lists_are_arrays_of_the_innermost_type() {
        let list = DataType::new_list(DataType::new_list(DataType::Int64, true), true);
        assert_eq!(oid_of(&list), 1016);
        assert_eq!(name_of(oid_of(&list)), "bigint[]");
    }

    #[test]
    fn numeric_tells_its_precision_and_scale() {
        let field = Field::new("n", DataType::Decimal128(18, 2), true);
        assert_eq!(wire_type(&field), WireType { oid: NUMERIC, size: -1, modifier: (18 << 16) + 2 + 4 });
    }

    #[test]
    fn metadata_makes_oids_and_json() {
        let with = |data_type, key: &str, value: &str| {
            Field::new("c", data_type, true).with_metadata(HashMap::from([(key.to_owned(), value.to_owned())]))
        };
        assert_eq!(oid_of_field(&with(DataType::Int32, "pg.oid_alias", "oid")), OID);
        assert_eq!(oid_of_field(&with(DataType::Utf8, "ARROW:extension:name", "arrow.json")), JSON);
    }
}
