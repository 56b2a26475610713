//! What the query engine says went wrong, as a Postgres user expects to read it.
//!
//! The one place that knows the wording of the engine's errors. No library's name gets past it.

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use freshet_types::{SqlError, SqlState};

use crate::rewrite::visible_name;

/// The error of a query or expression, from planning or from running it.
pub fn sql_error(error: DataFusionError) -> SqlError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<SqlError>() {
            Ok(error) => *error,
            Err(other) => from_text(&other.to_string(), SqlState::InternalError),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => sql_error(*inner),
        DataFusionError::Shared(inner) => from_reference(&inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => sql_error(first),
            None => SqlError::internal("an error without a cause"),
        },
        DataFusionError::SchemaError(error, _) => schema_error(&error),
        DataFusionError::ArrowError(error, _) => arrow_error(*error),
        DataFusionError::NotImplemented(message) => not_implemented(&message),
        DataFusionError::Plan(message) => plan_error(&message),
        DataFusionError::Execution(message) => from_text(&message, SqlState::InvalidParameterValue),
        DataFusionError::ResourcesExhausted(message) => out_of_resources(&message),
        DataFusionError::Internal(message) => from_text(&message, SqlState::InternalError),
        other => from_text(&other.to_string(), SqlState::InternalError),
    }
}

/// A query has used up its share of the memory, or the room for what did not fit.
fn out_of_resources(message: &str) -> SqlError {
    if message.contains("max_temp_directory_size") || message.contains("max-temp-directory-size") {
        return SqlError::new(SqlState::DiskFull, "no room for what the query cannot keep in memory")
            .with_hint("sort or join fewer rows, or start the server with more --memory");
    }
    SqlError::new(SqlState::OutOfMemory, "out of memory: the query needs more than the share of queries")
        .with_detail(clean(message))
        .with_hint("join or group fewer rows, run fewer queries at once, or start the server with more --memory")
}

fn from_reference(error: &DataFusionError) -> SqlError {
    match error {
        DataFusionError::ResourcesExhausted(message) => out_of_resources(message),
        DataFusionError::ArrowError(inner, _) => match &**inner {
            ArrowError::ExternalError(inner) if inner.is::<DataFusionError>() => {
                inner.downcast_ref().map_or_else(|| SqlError::internal("an error without a cause"), from_reference)
            }
            other => from_text(&other.to_string(), SqlState::InternalError),
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
            Some(error) => error.clone(),
            None => from_text(&inner.to_string(), SqlState::InternalError),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_reference(inner),
        DataFusionError::Shared(inner) => from_reference(inner),
        DataFusionError::SchemaError(error, _) => schema_error(error),
        DataFusionError::Plan(message) => plan_error(message),
        DataFusionError::NotImplemented(message) => not_implemented(message),
        other => from_text(&other.to_string(), SqlState::InternalError),
    }
}

fn arrow_error(error: ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::new(SqlState::DivisionByZero, "division by zero"),
        ArrowError::ArithmeticOverflow(_) => SqlError::new(SqlState::NumericValueOutOfRange, "value out of range"),
        ArrowError::CastError(message) => from_text(&message, SqlState::InvalidTextRepresentation),
        ArrowError::ParseError(message) => from_text(&message, SqlState::InvalidTextRepresentation),
        ArrowError::ExternalError(inner) => match inner.downcast::<DataFusionError>() {
            Ok(error) => sql_error(*error),
            Err(other) => from_text(&other.to_string(), SqlState::InternalError),
        },
        ArrowError::ComputeError(message) => from_text(&message, SqlState::InvalidParameterValue),
        other => from_text(&other.to_string(), SqlState::InternalError),
    }
}

fn schema_error(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => undefined_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            SqlError::new(SqlState::AmbiguousColumn, format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            let name = visible_name(name);
            SqlError::new(SqlState::DuplicateColumn, format!("column \"{name}\" specified more than once"))
                .with_hint("give one of them another name with AS")
        }
    }
}

fn undefined_column(field: &Column, valid_fields: &[Column]) -> SqlError {
    let written = match &field.relation {
        Some(relation) => format!("{}.{}", relation.table(), field.name),
        None => format!("\"{}\"", field.name),
    };
    if let Some(relation) = &field.relation
        && !valid_fields.is_empty()
        && valid_fields
            .iter()
            .all(|valid| valid.relation.as_ref().is_none_or(|other| other.table() != relation.table()))
    {
        let message = format!("missing FROM-clause entry for table \"{}\"", relation.table());
        return SqlError::new(SqlState::UndefinedTable, message);
    }
    let error = SqlError::new(SqlState::UndefinedColumn, format!("column {written} does not exist"));
    match nearest(&field.name, valid_fields.iter().map(|valid| valid.name.as_str())) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error,
    }
}

fn plan_error(message: &str) -> SqlError {
    if let Some(name) = between(message, "Invalid function '", "'") {
        return SqlError::new(SqlState::UndefinedFunction, format!("function {name} does not exist"));
    }
    let is_grouping = message.contains("must appear in the GROUP BY clause")
        || message.contains("must be in GROUP BY")
        || message.contains("non-aggregate values");
    if is_grouping {
        return grouping_error(message);
    }
    if message.contains("Aggregate functions are not allowed")
        || message.contains("aggregate functions are not allowed")
    {
        return SqlError::new(SqlState::GroupingError, "aggregate functions are not allowed here")
            .with_hint("filter groups with HAVING");
    }
    if message.contains("unique expression names") || message.contains("duplicate") {
        let name = between(message, "AS \"", "\"").or_else(|| between(message, "AS ", "\"")).map(visible_name);
        let error = match name {
            Some(name) => {
                SqlError::new(SqlState::DuplicateColumn, format!("column \"{name}\" specified more than once"))
            }
            None => SqlError::new(SqlState::DuplicateColumn, "a column is specified more than once"),
        };
        return error.with_hint("give one of them another name with AS");
    }
    if let Some(error) = type_error(message) {
        return error;
    }
    from_text(message, SqlState::SyntaxError)
}

fn grouping_error(message: &str) -> SqlError {
    let column = between(message, "\"", "\"").map(|written| written.replace('"', ""));
    let what = column.map_or_else(|| "a column".to_owned(), |column| format!("column \"{column}\""));
    SqlError::new(
        SqlState::GroupingError,
        format!("{what} must appear in the GROUP BY clause or be used in an aggregate function"),
    )
}

/// Operators and functions over types that they do not take.
fn type_error(message: &str) -> Option<SqlError> {
    if let Some((_, found)) =
        message.split_once("non-boolean predicate").and_then(|(_, rest)| rest.rsplit_once(" returning "))
    {
        let message = format!("argument of WHERE must be type boolean, not type {}", with_sql_types(found));
        return Some(SqlError::new(SqlState::DatatypeMismatch, message));
    }
    let mismatch = |message: String| Some(SqlError::new(SqlState::DatatypeMismatch, message));
    if let Some(operation) = between(message, "Cannot coerce arithmetic expression ", " to valid types") {
        return Some(undefined_operator(operation));
    }
    if let Some(operation) = between(message, "Cannot infer common argument type for comparison operation ", "\n") {
        return Some(undefined_operator(operation));
    }
    if message.contains("No function matches the given name and argument types")
        || message.contains("failed to match any signature")
        || message.contains("Error during planning: Function")
        || message.contains("' expects")
        || message.contains("coerce_types")
    {
        let call = between(message, "argument types '", "'").or_else(|| between(message, "'", "'")).unwrap_or("call");
        return Some(
            SqlError::new(SqlState::UndefinedFunction, format!("function {} does not exist", with_sql_types(call)))
                .with_hint(
                    "No function matches the given name and argument types. You might need to add explicit type casts.",
                ),
        );
    }
    if message.contains("UNION") && message.contains("number of columns") || message.contains("same number of columns")
    {
        return Some(SqlError::syntax("each UNION query must have the same number of columns"));
    }
    if message.contains("Unsupported CAST") || message.contains("Cannot automatically convert") {
        let text = clean(message);
        return mismatch(text);
    }
    if message.contains("boolean") || message.contains("Boolean") {
        return mismatch(clean(message));
    }
    None
}

fn undefined_operator(operation: &str) -> SqlError {
    SqlError::new(SqlState::UndefinedFunction, format!("operator does not exist: {}", with_sql_types(operation)))
        .with_hint("no operator of that name takes these types; a cast may help")
}

/// Arrow's names of types in a message, as SQL's.
fn with_sql_types(text: &str) -> String {
    const NAMES: [(&str, &str); 22] = [
        ("Timestamp(Nanosecond, None)", "timestamp"),
        ("Timestamp(Microsecond, None)", "timestamp"),
        ("Timestamp(ns)", "timestamp"),
        ("Timestamp(µs)", "timestamp"),
        ("Timestamp(µs, \"UTC\")", "timestamp with time zone"),
        ("Timestamp(ns, \"UTC\")", "timestamp with time zone"),
        ("Interval(MonthDayNano)", "interval"),
        ("Int8", "smallint"),
        ("UInt8", "smallint"),
        ("Int16", "smallint"),
        ("Int32", "integer"),
        ("UInt64", "bigint"),
        ("Int64", "bigint"),
        ("Float32", "real"),
        ("Float64", "double precision"),
        ("Utf8View", "text"),
        ("LargeUtf8", "text"),
        ("Utf8", "text"),
        ("Boolean", "boolean"),
        ("Date32", "date"),
        ("Binary", "bytea"),
        ("Time64(µs)", "time"),
    ];
    NAMES.iter().fold(without_precision(text), |text, (arrow, sql)| text.replace(arrow, sql))
}

/// `Decimal128(38, 9)` is `numeric`.
fn without_precision(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["Decimal128(", "Decimal256("] {
        while let Some(start) = text.find(name) {
            let end = text[start..].find(')').map_or(text.len(), |end| start + end + 1);
            text.replace_range(start..end, "numeric");
        }
    }
    text
}

fn not_implemented(message: &str) -> SqlError {
    let text = clean(message);
    let text = text.strip_prefix("unsupported ").map(|what| format!("{what} is not supported")).unwrap_or(text);
    SqlError::unsupported(text)
}

/// An error known by its text alone.
fn from_text(message: &str, otherwise: SqlState) -> SqlError {
    let lower = message.to_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        return SqlError::new(SqlState::DivisionByZero, "division by zero");
    }
    if let Some(data_type) =
        message.split_once("Can't cast value ").and_then(|(_, rest)| between(rest, " to type ", "\n"))
    {
        let message = format!("{} out of range", with_sql_types(data_type));
        return SqlError::new(SqlState::NumericValueOutOfRange, message);
    }
    if lower.contains("is too large to store in a decimal") || lower.contains("is too small to store in a decimal") {
        return SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow");
    }
    if lower.contains("scalar subquery returned more than one row") {
        let message = "more than one row returned by a subquery used as an expression";
        return SqlError::new(SqlState::CardinalityViolation, message);
    }
    if message == "value overflows numeric format" {
        return SqlError::new(SqlState::NumericValueOutOfRange, message);
    }
    if lower.contains("overflow") {
        return SqlError::new(SqlState::NumericValueOutOfRange, "value out of range");
    }
    if let Some((value, data_type)) = bad_literal(message) {
        return bad_value(value, data_type);
    }
    if otherwise == SqlState::InternalError {
        return SqlError::internal(clean(message));
    }
    SqlError::new(otherwise, clean(message))
}

/// `Cannot cast string 'x' to value of Int32 type`, and how timestamps, dates and intervals say it.
fn bad_literal(message: &str) -> Option<(&str, &str)> {
    let cast = message.split_once("Cannot cast string '").or_else(|| message.split_once("cannot cast string '"));
    if let Some((_, rest)) = cast {
        let (value, rest) = rest.split_once("' to value of ")?;
        return Some((value, rest.strip_suffix(" type").unwrap_or(rest)));
    }
    let value = between(message, "Error parsing timestamp from '", "'")?;
    Some((value, "timestamp"))
}

fn bad_value(value: &str, data_type: &str) -> SqlError {
    let name = with_sql_types(data_type);
    let looks_like_a_date = value.len() >= 8
        && value.chars().all(|c| c.is_ascii_digit() || "-/: .TZ+".contains(c))
        && value.starts_with(|c: char| c.is_ascii_digit());
    if looks_like_a_date && (name.starts_with("timestamp") || name == "date") {
        let message = format!("date/time field value out of range: \"{value}\"");
        return SqlError::new(SqlState::DatetimeFieldOverflow, message);
    }
    let state = match name.split(['(', ' ']).next() {
        Some("timestamp" | "date" | "time" | "interval") => SqlState::InvalidDatetimeFormat,
        _ => SqlState::InvalidTextRepresentation,
    };
    SqlError::new(state, format!("invalid input syntax for type {name}: \"{value}\""))
}

/// The text between `before` and the next `after`.
fn between<'m>(message: &'m str, before: &str, after: &str) -> Option<&'m str> {
    let (_, rest) = message.split_once(before)?;
    Some(rest.split_once(after).map_or(rest, |(found, _)| found))
}

/// The first line of a message, in Postgres' manner, without the engine's names and prefixes.
fn clean(message: &str) -> String {
    const PREFIXES: [&str; 9] = [
        "Error during planning: ",
        "Execution error: ",
        "Optimizer rule ",
        "Internal error: ",
        "This feature is not implemented: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
    ];
    let mut text = message.lines().next().unwrap_or_default().trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    let text = text.split(". This issue was likely caused").next().unwrap_or(text);
    let text = text.replace("DataFusion", "the query engine").replace(crate::rewrite::NAME_MARK, "");
    let text = with_sql_types(text.trim_end_matches('.'));
    let starts_with_acronym = text.chars().take(2).all(char::is_uppercase);
    let mut characters = text.chars();
    match characters.next() {
        Some(first) if !starts_with_acronym => first.to_lowercase().chain(characters).collect(),
        _ => text,
    }
}

/// The candidate that `name` was probably meant to be.
pub(crate) fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 2.max(candidate.chars().count() / 3) && *distance < name.chars().count()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
