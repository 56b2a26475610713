//! `SELECT DISTINCT`, `UNION`: each distinct row once.
//!
//! Input          deltas, exchanged by the whole row (or a part of it).
//! Output         per changed row and epoch: one insertion when it comes, one retraction when it goes.
//! State          one count per distinct row; on the disk where memory has no room.
//! On retraction  the count goes down; at zero the row goes.
//! Cost           time O(changed rows), memory O(distinct rows).
//!
//! It is a grouping by all columns without aggregates.

use freshet_planner::plan::Node;

use crate::operators::OperatorError;
use crate::operators::aggregate::{Aggregate, OwnsGlobalGroup};

/// The distinct rows of `input`.
///
/// # Errors
/// If rows of a type cannot be compared.
pub fn distinct(input: &Node) -> Result<Aggregate, OperatorError> {
    let all: Vec<usize> = (0..input.schema.fields().len()).collect();
    Aggregate::new(input, &all, &[], input.schema.clone(), OwnsGlobalGroup::No)
}
