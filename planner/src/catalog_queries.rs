//! Clients' catalog queries, put into what DataFusion can plan: text to text.
//!
//! psql and drivers ask `pg_catalog` in a Postgres of their own: `OPERATOR(pg_catalog.~)`, `COLLATE
//! pg_catalog.default`, `'t'::regclass`, functions that read other catalogs. `datafusion-pg-catalog` keeps
//! rules for what they send. One of its rules gives up on correlated subqueries in a SELECT list and puts
//! NULL in their place: that is fit for catalogs alone, so it is used only if a query reads nothing else.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, Function, FunctionArguments, Ident, SelectItem, SetExpr, Statement,
    visit_expressions_mut, visit_relations,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{
    PrependUnqualifiedPgTableName, RewriteArrayAnyAllOperation, RewritePgCatalogOperator, RewriteRegCastToSubquery,
    SqlStatementRewriteRule, StripCallableQualifier, StripCollate,
};

/// The relation behind [`LOOKUPS`].
pub const DEFINITIONS: &str = "freshet_definitions";

/// Functions that read a catalog, as the queries that they are: name, and the query over its arguments `$1`, `$2`.
const LOOKUPS: &[(&str, &str)] = &[
    (
        "pg_get_indexdef(",
        "(SELECT max(f.definition) FROM pg_catalog.freshet_definitions f WHERE f.oid = $1 AND f.kind = 'index')",
    ),
    (
        "pg_get_constraintdef(",
        "(SELECT max(f.definition) FROM pg_catalog.freshet_definitions f WHERE f.oid = $1 AND f.kind = 'constraint')",
    ),
    (
        "pg_get_viewdef(",
        "(SELECT max(f.definition) FROM pg_catalog.freshet_definitions f WHERE f.oid = $1 AND f.kind = 'view')",
    ),
    (
        "freshet_column_default(",
        "(SELECT max(f.definition) FROM pg_catalog.freshet_definitions f WHERE f.oid = $1 AND f.number = $2 AND f.kind = 'default')",
    ),
    (
        "obj_description(",
        "(SELECT max(f.description) FROM pg_catalog.pg_description f WHERE f.objoid = $1 AND f.objsubid = 0)",
    ),
    (
        "col_description(",
        "(SELECT max(f.description) FROM pg_catalog.pg_description f WHERE f.objoid = $1 AND f.objsubid = $2)",
    ),
];

/// A text that asks catalogs, as one that can be planned; any other text as it is.
pub fn rewrite_sql(sql: &str) -> Cow<'_, str> {
    if !asks_catalogs(sql) {
        return Cow::Borrowed(sql);
    }
    if let Some(query) = types_of_asyncpg(sql) {
        return Cow::Owned(query);
    }
    // A text that does not parse here is left to the planner, which says better what is wrong.
    match Parser::parse_sql(&PostgreSqlDialect {}, sql) {
        Ok(statements) if !statements.is_empty() && statements.iter().all(is_query) => {
            rewritten(sql, statements).map_or(Cow::Borrowed(sql), Cow::Owned)
        }
        _ => Cow::Borrowed(sql),
    }
}

/// asyncpg asks for types that it does not know, and for those that they are made of, by a recursive query that is
/// beyond the engine: subqueries in it are correlated, and recursive themselves. There are no domains, ranges and
/// composite types here, only arrays of base types, so one step is all the recursion that there is.
fn types_of_asyncpg(sql: &str) -> Option<String> {
    if !sql.trim_start().starts_with("WITH RECURSIVE typeinfo_tree(") {
        return None;
    }
    let asked = |condition: &str, depth: u8| {
        format!(
            "SELECT t.oid AS oid, ns.nspname AS ns, t.typname AS name, t.typtype AS kind, CAST(NULL AS INT) AS basetype, \
             t.typelem AS elemtype, t.typdelim AS elemdelim, CAST(NULL AS INT) AS range_subtype, \
             CAST(NULL AS OID[]) AS attrtypoids, CAST(NULL AS TEXT[]) AS attrnames, {depth} AS depth, \
             CAST(NULL AS TEXT) AS basetype_name, e.typname AS elemtype_name, CAST(NULL AS TEXT) AS range_subtype_name \
             FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace ns ON ns.oid = t.typnamespace \
             LEFT JOIN pg_catalog.pg_type e ON t.typlen = -1 AND t.typelem <> 0 AND t.typelem = e.oid WHERE {condition}"
        )
    };
    let elements =
        "t.oid IN (SELECT a.typelem FROM pg_catalog.pg_type a WHERE a.typlen = -1 AND a.oid = ANY($1::OID[]))";
    let types = asked("t.oid = ANY($1::OID[])", 0);
    Some(format!("SELECT DISTINCT * FROM ({types} UNION ALL {}) typeinfo_tree ORDER BY depth DESC", asked(elements, 1)))
}

fn asks_catalogs(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    ["pg_", "information_schema", "regclass", "regtype", "regproc", "col_description", "obj_description"]
        .iter()
        .any(|sign| lower.contains(sign))
}

fn is_query(statement: &Statement) -> bool {
    matches!(statement, Statement::Query(_))
}

fn rewritten(sql: &str, statements: Vec<Statement>) -> Option<String> {
    static CATALOG_RULES: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);
    let statements: Vec<Statement> = if statements.iter().all(reads_only_catalogs) {
        // The rules know some queries by their text, so that is left as it is wherever it can be.
        let text = match sql.contains("pg_attrdef") {
            true => {
                let texts = statements.into_iter().map(|statement| named_defaults(statement).to_string());
                Cow::Owned(texts.collect::<Vec<_>>().join("; "))
            }
            false => Cow::Borrowed(sql),
        };
        // psql's `\dT` looks a relation up by its id, of which there is one; the engine wants that said.
        let text = text.replace("(SELECT c.relkind = 'c' FROM", "(SELECT bool_or(c.relkind = 'c') FROM");
        CATALOG_RULES.parse(&text).ok()?.into_iter().map(without_array_queries).collect()
    } else {
        statements.into_iter().map(harmless_rules).collect()
    };
    let texts: Vec<String> =
        statements.into_iter().map(|statement| named_lookups(plain_types(statement)).to_string()).collect();
    Some(lookups(&texts.join("; ")))
}

/// psql asks for the default of a column `a` by a correlated query over `pg_attrdef`; puts a look-up in its place.
fn named_defaults(mut statement: Statement) -> Statement {
    let lookup = Parser::new(&PostgreSqlDialect {})
        .try_with_sql("freshet_column_default(a.attrelid, a.attnum)")
        .and_then(|mut parser| parser.parse_expr());
    let lookup = lookup.expect("the text is an expression");
    // Nothing breaks off the visit.
    let _ = visit_expressions_mut(&mut statement, |expression| {
        if let Expr::Subquery(query) = expression {
            let query = query.to_string();
            if query.contains("pg_attrdef") && query.contains("a.attrelid") && query.contains("a.attnum") {
                *expression = lookup.clone();
            }
        }
        ControlFlow::<()>::Continue(())
    });
    statement
}

/// Rules that keep the meaning of any query.
fn harmless_rules(statement: Statement) -> Statement {
    let rules: [&dyn SqlStatementRewriteRule; 6] = [
        &RewriteArrayAnyAllOperation,
        &PrependUnqualifiedPgTableName,
        &StripCallableQualifier,
        &StripCollate,
        &RewritePgCatalogOperator,
        &RewriteRegCastToSubquery::new(),
    ];
    rules.into_iter().fold(statement, |statement, rule| rule.rewrite(statement))
}

/// `array(SELECT …)` gathers options and roles, of which catalogs here have none.
fn without_array_queries(mut statement: Statement) -> Statement {
    let null =
        Parser::new(&PostgreSqlDialect {}).try_with_sql("NULL::TEXT[]").and_then(|mut parser| parser.parse_expr());
    let null = null.expect("the text is an expression");
    // Nothing breaks off the visit.
    let _ = visit_expressions_mut(&mut statement, |expression| {
        if let Expr::Function(Function { name, args: FunctionArguments::Subquery(_), .. }) = expression
            && name.to_string().eq_ignore_ascii_case("array")
        {
            *expression = null.clone();
        }
        ControlFlow::<()>::Continue(())
    });
    statement
}

/// Gives the columns that call [`LOOKUPS`] the names of the functions: as subqueries they would have none.
fn named_lookups(mut statement: Statement) -> Statement {
    if let Statement::Query(query) = &mut statement {
        name_lookups(&mut query.body);
    }
    statement
}

fn name_lookups(body: &mut SetExpr) {
    match body {
        SetExpr::Query(query) => name_lookups(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            name_lookups(left);
            name_lookups(right);
        }
        SetExpr::Select(select) => {
            let mut used: Vec<String> = Vec::new();
            for item in &mut select.projection {
                let SelectItem::UnnamedExpr(expr @ Expr::Function(_)) = item else { continue };
                let called = expr.to_string();
                let Some((lookup, _)) = LOOKUPS.iter().find(|(lookup, _)| called.starts_with(lookup)) else { continue };
                let mut name = lookup.trim_end_matches('(').to_owned();
                while used.contains(&name) {
                    name.push('_');
                }
                used.push(name.clone());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
            }
        }
        _ => {}
    }
}

/// Casts to types that exist only in Postgres: object ids are integers here, names are text.
fn plain_types(mut statement: Statement) -> Statement {
    // Nothing breaks off the visit.
    let _ = visit_expressions_mut(&mut statement, |expression| {
        if let Expr::Cast { data_type, .. } = expression
            && let Some(plain) = plain_type(data_type)
        {
            *data_type = plain;
        }
        ControlFlow::<()>::Continue(())
    });
    statement
}

fn plain_type(data_type: &DataType) -> Option<DataType> {
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(item, size)) = data_type {
        let item = Box::new(plain_type(item)?);
        return Some(DataType::Array(ArrayElemTypeDef::SquareBracket(item, *size)));
    }
    let written = data_type.to_string().to_ascii_lowercase();
    let name = written.strip_prefix("pg_catalog.").unwrap_or(&written);
    Some(match name {
        "regclass" | "regtype" | "regproc" | "regprocedure" | "regnamespace" | "regrole" | "regoper"
        | "regoperator" | "regconfig" | "regdictionary" | "regcollation" | "oid" | "int4" => DataType::Int(None),
        "int2" => DataType::SmallInt(None),
        "int8" => DataType::BigInt(None),
        "\"char\"" | "name" | "text" | "varchar" | "bpchar" => DataType::Text,
        "bool" => DataType::Boolean,
        _ => return None,
    })
}

fn reads_only_catalogs(statement: &Statement) -> bool {
    let mut reads_catalog = false;
    let stranger = visit_relations(statement, |name| {
        let parts: Vec<String> = name.0.iter().map(|part| part.to_string().to_ascii_lowercase()).collect();
        let is_catalog = match parts.as_slice() {
            [schema, .., _] => schema == "pg_catalog" || schema == "information_schema",
            [name] => name.starts_with("pg_"),
            [] => false,
        };
        reads_catalog |= is_catalog;
        if is_catalog { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    reads_catalog && stranger.is_continue()
}

/// Replaces calls of [`LOOKUPS`], inner ones too.
fn lookups(sql: &str) -> String {
    let mut sql = sql.to_owned();
    for (call, query) in LOOKUPS {
        let mut from = 0;
        while let Some(found) = sql[from..].find(call).map(|at| from + at) {
            let before = sql[..found].bytes().next_back();
            let Some((arguments, end)) = arguments(&sql[found + call.len()..]) else { break };
            // Part of a longer name: `shobj_description` ends in `obj_description`.
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                from = found + call.len();
                continue;
            }
            let first = arguments.first().map_or("NULL", String::as_str);
            let second = arguments.get(1).map_or("NULL", String::as_str);
            let replacement = query.replace("$1", first).replace("$2", second);
            sql.replace_range(found..found + call.len() + end, &replacement);
            from = found + replacement.len();
        }
    }
    sql
}

/// The arguments up to the closing parenthesis, and where the text after it begins.
fn arguments(text: &str) -> Option<(Vec<String>, usize)> {
    let (mut depth, mut start, mut quote) = (0_usize, 0, None);
    let mut arguments = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'(') => depth += 1,
            (None, b')') if depth == 0 => {
                arguments.push(text[start..at].trim().to_owned());
                return Some((arguments, at + 1));
            }
            (None, b')') => depth -= 1,
            (None, b',') if depth == 0 => {
                arguments.push(text[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_texts_are_left_alone() {
        for sql in ["SELECT 1", "CREATE TABLE pg_x (a INT)", "SELECT pg_ FROM", ""] {
            assert!(matches!(rewrite_sql(sql), Cow::Borrowed(_)), "{sql}");
        }
    }

    #[test]
    fn postgres_only_syntax_goes_away() {
        let sql = "SELECT c.oid FROM pg_catalog.pg_class c \
                   WHERE c.relname OPERATOR(pg_catalog.~) '^(t)$' COLLATE pg_catalog.default";
        assert_eq!(rewrite_sql(sql), "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relname ~ '^(t)$'");
    }

    #[test]
    fn a_query_over_users_tables_keeps_its_subqueries() {
        let sql = "SELECT (SELECT max(b.x) FROM b WHERE b.k = a.k), pg_backend_pid() FROM a";
        assert!(rewrite_sql(sql).contains("SELECT max(b.x)"));
    }

    #[test]
    fn types_that_asyncpg_asks_for_take_no_recursion() {
        let sql = rewrite_sql("WITH RECURSIVE typeinfo_tree(\n    oid, ns) AS (SELECT … pg_type …) SELECT …");
        assert!(sql.starts_with("SELECT DISTINCT * FROM (SELECT t.oid AS oid"), "{sql}");
        assert_eq!(sql.matches("ANY($1::OID[])").count(), 2);
    }

    #[test]
    fn functions_that_read_catalogs_become_queries() {
        let sql = lookups("SELECT pg_get_indexdef(i.indexrelid, 0, true), shobj_description(1, 'x') FROM i");
        let expected = "SELECT (SELECT max(f.definition) FROM pg_catalog.freshet_definitions f \
                        WHERE f.oid = i.indexrelid AND f.kind = 'index'), shobj_description(1, 'x') FROM i";
        assert_eq!(sql, expected);
        assert_eq!(arguments("a(b, ')'), c) d"), Some((vec!["a(b, ')')".to_owned(), "c".to_owned()], 13)));
    }
}
