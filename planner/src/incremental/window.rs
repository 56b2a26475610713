//! Window functions: one node for those that share partition and order.
//!
//! Partition keys that are expressions become columns of a map below.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{self as logical, Expr};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr;
use freshet_types::SqlError;

use super::convert::{convert as convert_plan, schema_of};
use super::join::{Side, column};
use super::map::map;
use super::properties;
use crate::coerce::one_zero;
use crate::error::sql_error;
use crate::explain;
use crate::logical::Names;
use crate::plan::{Node, Op};

pub(super) fn convert(window: &logical::Window, names: &Names) -> Result<Node, SqlError> {
    let input = convert_plan(&window.input, names)?;
    let input_schema = window.input.schema();
    let width = input_schema.fields().len();
    let mut specifications: Vec<Specification> = Vec::new();
    // For each function, its specification and its place there.
    let mut places = Vec::with_capacity(window.window_expr.len());
    for expr in &window.window_expr {
        let call = called(expr)?;
        let known = specifications.iter().position(|known| known.is_of(call));
        let at = known.unwrap_or_else(|| {
            specifications.push(Specification::of(call));
            specifications.len() - 1
        });
        let planning = PhysicalPlanningContext::default();
        let function = create_window_expr(expr, input_schema, &ExecutionProps::new(), &planning).map_err(sql_error)?;
        places.push((at, specifications[at].functions.len()));
        specifications[at].functions.push(function);
    }
    let mut side = Side::new(input, input_schema);
    let mut partitions = Vec::with_capacity(specifications.len());
    for specification in &specifications {
        let keys = specification.partition_by.iter().map(|key| {
            let key = one_zero(key.clone(), input_schema).map_err(sql_error)?;
            side.column(&key)
        });
        partitions.push(keys.collect::<Result<Vec<usize>, _>>()?);
    }
    let mut node = side.finish()?;
    let mut firsts = Vec::with_capacity(specifications.len());
    for (specification, partition) in specifications.into_iter().zip(partitions) {
        firsts.push(node.schema.fields().len());
        node = with_functions(node, partition, specification.functions)?;
    }
    let results = places.into_iter().map(|(at, place)| firsts[at] + place);
    let columns: Vec<usize> = (0..width).chain(results).collect();
    let own_names = columns.iter().map(|at| node.schema.field(*at).name().clone());
    let named = schema_of(&window.schema);
    let fields = named.fields().iter().zip(own_names).enumerate().map(|(at, (field, own))| {
        // A function goes by a long name there.
        if at < width { field.as_ref().clone() } else { field.as_ref().clone().with_name(own) }
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    if columns.iter().copied().eq(0..node.schema.fields().len()) {
        return Ok(Node { schema, ..node });
    }
    let columns = columns.into_iter().map(|at| column(&node, at)).collect::<Vec<Arc<dyn PhysicalExpr>>>();
    map(node, None, columns, schema)
}

fn with_functions(input: Node, partition: Vec<usize>, functions: Vec<Arc<dyn WindowExpr>>) -> Result<Node, SqlError> {
    let mut fields: Vec<Field> = input.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for function in &functions {
        let name = explain::window_function(&**function, &input.schema);
        fields.push(function.field().map_err(sql_error)?.as_ref().clone().with_name(name));
    }
    let properties = properties::window(&input);
    let op = Op::Window { input: Box::new(input), partition, functions };
    Ok(Node { op, schema: Arc::new(Schema::new(fields)), properties })
}

/// What functions share.
struct Specification {
    partition_by: Vec<Expr>,
    order_by: Vec<Sort>,
    functions: Vec<Arc<dyn WindowExpr>>,
}

impl Specification {
    fn of(call: &WindowFunction) -> Self {
        let params = &call.params;
        Self { partition_by: params.partition_by.clone(), order_by: params.order_by.clone(), functions: Vec::new() }
    }

    fn is_of(&self, call: &WindowFunction) -> bool {
        self.partition_by == call.params.partition_by && self.order_by == call.params.order_by
    }
}

fn called(expr: &Expr) -> Result<&WindowFunction, SqlError> {
    match expr {
        Expr::Alias(alias) => called(&alias.expr),
        Expr::WindowFunction(call) => Ok(call),
        other => Err(SqlError::internal(format!("not a window function: {other}"))),
    }
}
