//! The oracle: a materialized view must equal its own query, run from scratch (I-1).
//!
//! The server's ad-hoc engine, which knows nothing of deltas, answers the query; the view's content must be the same
//! multiset of rows. Over tables both sides read the same instant, because a session reads its own writes, so the
//! first look must agree. Over sources, which flow by themselves, the two looks are at two instants, and are repeated
//! until they agree; and so if rows expire, which they do by themselves as well.
//!
//! Of a view that does not keep its rows for ever, the query counts from the horizon on that the view says it is at.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::client::{Client, TextRow, describe, text_rows};
use crate::wait::Attempts;

/// How far two renderings of a floating-point result may be apart: sums depend on the order of their terms.
const RELATIVE_TOLERANCE: f64 = 1e-9;
/// How long a view over sources may take to agree with its query.
const FLOWING_BOUND: Duration = Duration::from_secs(20);
/// Rows shown of each side of a difference.
const ROWS_SHOWN: usize = 20;

/// Every materialized view there is; the definition is the text of its query.
const VIEWS: &str = "SELECT schema_name, name, definition FROM freshet_catalog.materialized_views";
const SOURCES: &str = "SELECT count(*) FROM freshet_catalog.source_status";
/// What expires, and by which column: that of a table may have none.
const RETENTION: &str = "SELECT relation, time_column, expired_before FROM freshet_catalog.retention";

/// Compares every materialized view with its query.
///
/// # Errors
/// If one differs: which, and which rows are on one side only.
pub async fn check(client: &Client) -> Result<()> {
    let views = client.rows(VIEWS).await.context("the oracle cannot list the materialized views")?;
    if views.is_empty() {
        return Ok(());
    }
    let has_sources = client.value(SOURCES).await.context("the oracle cannot list the sources")? != "0";
    let flowing =
        has_sources || !client.rows(RETENTION).await.context("the oracle cannot list what expires")?.is_empty();
    for view in &views {
        let [schema, name, definition] = view.as_slice() else { bail!("three columns were expected, not {view:?}") };
        let view = View { name, select: format!("SELECT * FROM {}.{}", quoted(schema), quoted(name)), definition };
        let outcome = if flowing {
            let inputs = if has_sources { Inputs::Sources } else { Inputs::Tables };
            check_flowing(client, &view, inputs).await
        } else {
            match view_difference(client, &view, Inputs::Tables).await? {
                None => Ok(()),
                Some(difference) => Err(anyhow!(difference)),
            }
        };
        outcome.with_context(|| format!("materialized view \"{name}\" differs from its query: {definition}"))?;
    }
    Ok(())
}

/// A materialized view to be compared.
struct View<'a> {
    name: &'a str,
    /// Gives its content.
    select: String,
    definition: &'a str,
}

/// Whether there are sources, which may keep nothing that could be read again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inputs {
    Tables,
    Sources,
}

async fn check_flowing(client: &Client, view: &View<'_>, inputs: Inputs) -> Result<()> {
    let mut attempts = Attempts::within(FLOWING_BOUND);
    let mut last = String::new();
    loop {
        attempts.next("view and query to agree").await.with_context(|| last.clone())?;
        match view_difference(client, view, inputs).await? {
            None => return Ok(()),
            Some(difference) => last = difference,
        }
    }
}

/// How a view differs from its query, in words; `None` if it does not.
///
/// A query that fails on some row (class 22) cannot be compared: the view sets that row aside, the query as a whole
/// gives an error. But then the view must have set something aside. Nor can a query over a source that keeps nothing
/// (55000). Files that go there state what the view holds.
async fn view_difference(client: &Client, view: &View<'_>, inputs: Inputs) -> Result<Option<String>> {
    let query = kept_part(client, view).await?;
    let query_rows = match client.simple_query(&query).await {
        Ok(messages) => text_rows(&messages),
        Err(error) => match error.code().map(|state| state.code()) {
            Some("55000") if inputs == Inputs::Sources => return Ok(None),
            Some(state) if state.starts_with("22") => return nothing_set_aside(client, view, &describe(&error)).await,
            _ => bail!("the query cannot be run from scratch: {}", describe(&error)),
        },
    };
    let view_rows = client.rows(&view.select).await?;
    Ok(describe_difference(view_rows, query_rows))
}

/// The query of a view, or of that part of its rows that it keeps.
async fn kept_part(client: &Client, view: &View<'_>) -> Result<String> {
    let retention = client.rows(RETENTION).await.context("the oracle cannot list what expires")?;
    let Some(own) = retention.iter().find(|row| row[0] == view.name) else { return Ok(view.definition.to_owned()) };
    let name = view.name.replace('\'', "''");
    let columns = format!(
        "SELECT column_name FROM information_schema.columns WHERE table_name = '{name}' ORDER BY ordinal_position"
    );
    let columns = client.rows(&columns).await.context("the oracle cannot list the columns of a view")?;
    let columns: Vec<String> = columns.iter().map(|row| quoted(&row[0])).collect();
    let (all, time, before) = (columns.join(", "), quoted(&own[1]), &own[2]);
    let kept = format!("{time} IS NULL OR CAST({time} AS TIMESTAMPTZ) >= TIMESTAMPTZ '{before}'");
    Ok(format!("SELECT * FROM ({}) AS computed({all}) WHERE {kept}", view.definition))
}

/// How the answers of two queries differ, in words; `None` if they do not.
///
/// # Errors
/// If one of them cannot be run.
pub async fn difference(client: &Client, view: &str, query: &str) -> Result<Option<String>> {
    Ok(describe_difference(client.rows(view).await?, client.rows(query).await?))
}

/// What is wrong with a view whose query fails, if the view itself has no errors.
async fn nothing_set_aside(client: &Client, view: &View<'_>, error: &str) -> Result<Option<String>> {
    let name = view.name.replace('\'', "''");
    let errors = format!("SELECT count(*) FROM freshet_catalog.view_errors WHERE view = '{name}'");
    let errors = client.value(&errors).await.context("the oracle cannot read the errors of views")?;
    Ok((errors == "0").then(|| format!("the query fails, and the view has set no row aside: {error}")))
}

/// Compares two multisets of rows; see [`RELATIVE_TOLERANCE`] for what counts as equal.
fn describe_difference(view: Vec<TextRow>, query: Vec<TextRow>) -> Option<String> {
    let (mut only_view, mut only_query) = subtract(view, query);
    only_view.retain(|row| match only_query.iter().position(|other| nearly_equal(row, other)) {
        Some(at) => {
            only_query.swap_remove(at);
            false
        }
        None => true,
    });
    if only_view.is_empty() && only_query.is_empty() {
        return None;
    }
    let mut text = String::new();
    show(&mut text, "only in the view", only_view);
    show(&mut text, "only in the query's result", only_query);
    Some(text)
}

/// What remains of each side after equal rows have been paired off.
fn subtract(left: Vec<TextRow>, right: Vec<TextRow>) -> (Vec<TextRow>, Vec<TextRow>) {
    let mut counts: HashMap<TextRow, usize> = HashMap::new();
    for row in right {
        *counts.entry(row).or_default() += 1;
    }
    let mut only_left = Vec::new();
    for row in left {
        match counts.get_mut(&row) {
            Some(count) if *count > 0 => *count -= 1,
            _ => only_left.push(row),
        }
    }
    let only_right = counts.into_iter().flat_map(|(row, count)| std::iter::repeat_n(row, count)).collect();
    (only_left, only_right)
}

fn nearly_equal(left: &TextRow, right: &TextRow) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(a, b)| a == b || nearly_equal_numbers(a, b))
}

/// Integers are exact; only what is written with a fraction or an exponent may differ a little.
fn nearly_equal_numbers(left: &str, right: &str) -> bool {
    if ![left, right].iter().any(|text| text.contains(['.', 'e', 'E'])) {
        return false;
    }
    match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => {
            let scale = left.abs().max(right.abs()).max(1.0);
            (left - right).abs() <= RELATIVE_TOLERANCE * scale
        }
        _ => false,
    }
}

fn show(text: &mut String, heading: &str, mut rows: Vec<TextRow>) {
    let _ = writeln!(text, "{} row(s) {heading}:", rows.len());
    rows.sort();
    for row in rows.iter().take(ROWS_SHOWN) {
        let _ = writeln!(text, "    {}", row.join(" | "));
    }
    if rows.len() > ROWS_SHOWN {
        let _ = writeln!(text, "    …");
    }
}

/// A name as an identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<TextRow> {
        rows.iter().map(|row| row.iter().map(|value| (*value).to_owned()).collect()).collect()
    }

    #[test]
    fn order_does_not_matter_but_multiplicity_does() {
        assert_eq!(describe_difference(rows(&[&["1"], &["2"]]), rows(&[&["2"], &["1"]])), None);
        let text = describe_difference(rows(&[&["1"], &["1"]]), rows(&[&["1"]])).unwrap();
        assert_eq!(text, "1 row(s) only in the view:\n    1\n0 row(s) only in the query's result:\n");
    }

    #[test]
    fn floats_may_differ_in_the_last_digits_and_integers_may_not() {
        assert_eq!(describe_difference(rows(&[&["a", "0.30000000000000004"]]), rows(&[&["a", "0.3"]])), None);
        assert_eq!(describe_difference(rows(&[&["1e20"]]), rows(&[&["100000000000000000001"]])), None);
        assert!(describe_difference(rows(&[&["0.31"]]), rows(&[&["0.3"]])).is_some());
        assert!(describe_difference(rows(&[&["9007199254740993"]]), rows(&[&["9007199254740992"]])).is_some());
        assert!(describe_difference(rows(&[&["NULL"]]), rows(&[&["0.0"]])).is_some());
    }

    #[test]
    fn each_row_pairs_with_one_row_only() {
        let text = describe_difference(rows(&[&["0.1"], &["0.1"]]), rows(&[&["0.10000000000000001"]])).unwrap();
        assert!(text.starts_with("1 row(s) only in the view"), "{text}");
    }
}
