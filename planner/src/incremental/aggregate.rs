//! GROUP BY and aggregate functions.
//!
//! An aggregation becomes three nodes: a map that computes group keys, arguments and filters as columns; the aggregation
//! over those columns; and, if a result has another type than the query promises, a map that casts it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::{AggregateFunction as Call, AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::{self as logical, Expr, ExprSchemable};
use datafusion::physical_expr::PhysicalExpr;
use freshet_types::SqlError;

use super::convert::{convert as convert_plan, distinct, schema_of};
use super::expression::physical;
use super::map::{cast, map};
use super::{not_yet, properties};
use crate::coerce::one_zero;
use crate::error::sql_error;
use crate::logical::Names;
use crate::plan::{Aggregate, AggregateFunction, Node, Op};
use crate::rewrite::visible_name;
use crate::sql_type::sql_name;

pub(super) fn convert(aggregate: &logical::Aggregate, names: &Names) -> Result<Node, SqlError> {
    let input = convert_plan(&aggregate.input, names)?;
    let mut columns = Columns { schema: aggregate.input.schema(), expressions: Vec::new() };
    let keys = aggregate.group_expr.iter().map(|key| columns.key(unaliased(key)));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let calls = aggregate.aggr_expr.iter().map(|expr| columns.aggregate(unaliased(expr)));
    let mut calls = calls.collect::<Result<Vec<_>, _>>()?;
    let input = columns.map(input)?;
    let schema = schema_of(&aggregate.schema);
    for (call, wanted) in calls.iter_mut().zip(schema.fields().iter().skip(keys.len())) {
        call.output_type = promised(&call.output_type, wanted.data_type());
    }
    if calls.is_empty() && !keys.is_empty() {
        return map_of_keys(input, &keys, schema).map(distinct);
    }
    let properties = properties::aggregate(&input, &keys);
    let names = result_names(aggregate, &calls, &input.schema);
    let key_fields = keys.iter().map(|key| input.schema.field(*key).clone());
    let results = calls.iter().zip(&names).zip(schema.fields().iter().skip(keys.len()));
    let result_fields = results
        .clone()
        .map(|((call, name), promised)| Field::new(name, call.output_type.clone(), promised.is_nullable()));
    let own_schema = Arc::new(Schema::new(key_fields.clone().chain(result_fields).collect::<Vec<_>>()));
    let promised_fields = results.map(|((_, name), promised)| promised.as_ref().clone().with_name(name));
    let promised_schema = Arc::new(Schema::new(key_fields.chain(promised_fields).collect::<Vec<_>>()));
    let op = Op::Aggregate { input: Box::new(input), keys, aggregates: calls };
    cast(Node { op, schema: own_schema, properties }, promised_schema)
}

/// The name that a result was given, or the call as its user would write it.
fn result_names(aggregate: &logical::Aggregate, calls: &[Aggregate], input: &Schema) -> Vec<String> {
    let names = aggregate.aggr_expr.iter().zip(calls).map(|(expr, call)| match expr {
        Expr::Alias(alias) => visible_name(&alias.name).to_owned(),
        _ => crate::explain::aggregate(call, input),
    });
    names.collect()
}

/// A decimal result takes the precision that the query promises, which spares a cast.
fn promised(found: &DataType, wanted: &DataType) -> DataType {
    match (found, wanted) {
        (DataType::Decimal128(_, scale), DataType::Decimal128(_, other)) if scale == other => wanted.clone(),
        _ => found.clone(),
    }
}

/// The keys in their order; a key that was written twice appears twice.
fn map_of_keys(input: Node, keys: &[usize], schema: arrow::datatypes::SchemaRef) -> Result<Node, SqlError> {
    let identity = super::map::identity(&input.schema);
    let expressions = keys.iter().map(|key| identity[*key].clone()).collect();
    map(input, None, expressions, schema)
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// The columns that the aggregation reads, each once.
struct Columns<'a> {
    schema: &'a DFSchema,
    expressions: Vec<Expr>,
}

impl Columns<'_> {
    fn index_of(&mut self, expr: &Expr) -> Result<usize, SqlError> {
        if let Expr::GroupingSet(_) = expr {
            return Err(not_yet("GROUPING SETS, ROLLUP or CUBE"));
        }
        if let Some(at) = self.expressions.iter().position(|known| known == expr) {
            return Ok(at);
        }
        self.expressions.push(expr.clone());
        Ok(self.expressions.len() - 1)
    }

    /// The column of a group key.
    fn key(&mut self, expr: &Expr) -> Result<usize, SqlError> {
        match expr {
            // Refused there.
            Expr::GroupingSet(_) => self.index_of(expr),
            _ => self.index_of(&one_zero(expr.clone(), self.schema).map_err(sql_error)?),
        }
    }

    fn aggregate(&mut self, expr: &Expr) -> Result<Aggregate, SqlError> {
        let Expr::AggregateFunction(call) = expr else {
            return Err(SqlError::internal(format!("not an aggregate function: {expr}")));
        };
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = &call.params;
        let function = function_of(call)?;
        let is_ordered = !order_by.is_empty();
        if is_ordered {
            return Err(not_yet(&format!("ORDER BY inside {function}")));
        }
        if *null_treatment == Some(NullTreatment::IgnoreNulls) {
            return Err(not_yet(&format!("IGNORE NULLS of {function}")));
        }
        let filter = filter.as_deref().map(|filter| self.index_of(filter)).transpose()?;
        let [argument] = args.as_slice() else {
            return Err(not_yet(&format!("{function} of several arguments")));
        };
        if counts_rows(function, argument, *distinct) {
            return Ok(Aggregate { function, argument: None, distinct: false, filter, output_type: DataType::Int64 });
        }
        let (argument_type, output_type) = types_of(function, &argument.get_type(self.schema).map_err(sql_error)?)?;
        let argument = argument.clone().cast_to(&argument_type, self.schema).map_err(sql_error)?;
        let argument = Some(self.index_of(&argument)?);
        // Twice the same value changes neither the least nor the greatest, nor whether all are true.
        let distinct = *distinct && !is_idempotent(function);
        Ok(Aggregate { function, argument, distinct, filter, output_type })
    }

    fn map(self, input: Node) -> Result<Node, SqlError> {
        let mut fields = Vec::with_capacity(self.expressions.len());
        let mut expressions = Vec::with_capacity(self.expressions.len());
        for expr in &self.expressions {
            let data_type = expr.get_type(self.schema).map_err(sql_error)?;
            let nullable = expr.nullable(self.schema).map_err(sql_error)?;
            let executable = physical(expr, self.schema)?;
            fields.push(Field::new(name_of(expr, &executable, self.schema), data_type, nullable));
            expressions.push(executable);
        }
        map(input, None, expressions, Arc::new(Schema::new(fields)))
    }
}

/// A cast keeps the name of what it casts.
fn name_of(expr: &Expr, executable: &Arc<dyn PhysicalExpr>, schema: &DFSchema) -> String {
    match expr {
        Expr::Column(column) => visible_name(&column.name).to_owned(),
        Expr::Cast(cast) if matches!(*cast.expr, Expr::Column(_)) => name_of(&cast.expr, executable, schema),
        _ => crate::explain::expression(executable, schema.as_arrow()),
    }
}

fn function_of(call: &Call) -> Result<AggregateFunction, SqlError> {
    Ok(match call.func.name() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "var" => AggregateFunction::VarianceSample,
        "var_pop" => AggregateFunction::VariancePopulation,
        "stddev" => AggregateFunction::StddevSample,
        "stddev_pop" => AggregateFunction::StddevPopulation,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        other => return Err(not_yet(&format!("the aggregate function {other}"))),
    })
}

/// `count(*)` arrives as `count(1)`.
fn counts_rows(function: AggregateFunction, argument: &Expr, distinct: bool) -> bool {
    let is_constant = matches!(argument, Expr::Literal(value, _) if !value.is_null());
    function == AggregateFunction::Count && is_constant && !distinct
}

fn is_idempotent(function: AggregateFunction) -> bool {
    use AggregateFunction::{BoolAnd, BoolOr, Max, Min};
    matches!(function, Min | Max | BoolAnd | BoolOr)
}

/// The type that the argument is cast to, and the type of the result.
fn types_of(function: AggregateFunction, argument: &DataType) -> Result<(DataType, DataType), SqlError> {
    use AggregateFunction as F;
    const DECIMAL_MAX: u8 = 38;
    let refused = || Err(not_yet(&format!("{function}({})", sql_name(argument))));
    Ok(match function {
        F::Count => (argument.clone(), DataType::Int64),
        F::Min | F::Max => (argument.clone(), argument.clone()),
        F::BoolAnd | F::BoolOr => (DataType::Boolean, DataType::Boolean),
        F::Sum => match argument {
            DataType::UInt64 => (DataType::Decimal128(20, 0), DataType::Decimal128(DECIMAL_MAX, 0)),
            integer if integer.is_integer() => (DataType::Int64, DataType::Int64),
            float if float.is_floating() => (DataType::Float64, DataType::Float64),
            DataType::Decimal128(_, scale) => (argument.clone(), DataType::Decimal128(DECIMAL_MAX, *scale)),
            _ => return refused(),
        },
        F::Avg => match argument {
            DataType::Decimal128(precision, scale) => {
                let precision = DECIMAL_MAX.min(precision + 4);
                let scale = (*scale + 4).min(precision as i8);
                (argument.clone(), DataType::Decimal128(precision, scale))
            }
            number if number.is_numeric() => (DataType::Float64, DataType::Float64),
            _ => return refused(),
        },
        F::VarianceSample | F::VariancePopulation | F::StddevSample | F::StddevPopulation => match argument {
            number if number.is_numeric() => (DataType::Float64, DataType::Float64),
            _ => return refused(),
        },
    })
}
