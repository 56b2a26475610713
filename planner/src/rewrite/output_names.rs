//! Names of output columns, as Postgres makes them up for expressions without AS.
//!
//! The query engine would call `count(*)` just that, and `a + 1` `t.a + Int64(1)`; Postgres calls them `count` and
//! `?column?`. The rules are those of `FigureColname` in PostgreSQL's `parse_target.c`. The engine also insists that
//! the columns of one SELECT have different names, where Postgres does not: a repeated name gets an invisible
//! suffix, which [`visible_name`] takes off.

use datafusion::sql::sqlparser::ast::{self, Expr, SelectItem};

use crate::parse::names::fold_ident;

/// Begins the suffix of a repeated name. No identifier of a user has it: Postgres' protocol ends strings with it.
pub(crate) const MARK: char = '\0';

const NO_NAME: &str = "?column?";

/// The name as its user sees it.
pub(crate) fn visible_name(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// Gives each item of a SELECT list a name of its own.
pub(super) fn name_columns(items: &mut [SelectItem]) {
    let has_wildcard = items.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    let mut names = Names::default();
    for (position, item) in items.iter_mut().enumerate() {
        let (expr, visible, is_plain_column) = match &*item {
            SelectItem::UnnamedExpr(expr) => (expr, name_of(expr), is_column(expr)),
            SelectItem::ExprWithAlias { expr, alias } => (expr, fold_ident(alias), false),
            _ => continue,
        };
        let is_taken = if is_plain_column {
            // A column that `*` gives, too.
            has_wildcard || !names.add_column(expr.to_string(), &visible)
        } else {
            let is_given = matches!(item, SelectItem::ExprWithAlias { .. });
            // A name that was made up may be that of a column that `*` gives.
            !names.add_computed(&visible) || (has_wildcard && !is_given)
        };
        if is_plain_column && !is_taken {
            continue;
        }
        let name = if is_taken { format!("{visible}{MARK}{position}") } else { visible };
        let expr = expr.clone();
        *item = SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', name) };
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// The names given so far.
#[derive(Default)]
struct Names {
    /// Columns as written, which their qualifiers tell apart.
    columns: Vec<String>,
    column_names: Vec<String>,
    computed: Vec<String>,
}

impl Names {
    /// Whether the column can keep its name.
    fn add_column(&mut self, written: String, name: &str) -> bool {
        let is_free = !self.columns.contains(&written) && !self.computed.iter().any(|other| other == name);
        self.columns.push(written);
        self.column_names.push(name.to_owned());
        is_free
    }

    /// Whether the expression can have this name.
    fn add_computed(&mut self, name: &str) -> bool {
        let is_free = !self.computed.iter().chain(&self.column_names).any(|other| other == name);
        self.computed.push(name.to_owned());
        is_free
    }
}

/// The name that Postgres gives an expression.
pub(crate) fn name_of(expr: &Expr) -> String {
    strong_name(expr).or_else(|| weak_name(expr)).unwrap_or_else(|| NO_NAME.to_owned())
}

/// A name that a cast or a CASE around the expression takes over.
fn strong_name(expr: &Expr) -> Option<String> {
    let fixed = match expr {
        Expr::Identifier(ident) => return Some(fold_ident(ident)),
        Expr::CompoundIdentifier(parts) => return parts.last().map(fold_ident),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                ast::AccessExpr::Dot(field) => strong_name(field),
                ast::AccessExpr::Subscript(_) => None,
            });
            return field.or_else(|| strong_name(root));
        }
        Expr::Function(function) => return function.name.0.last()?.as_ident().map(fold_ident),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } | Expr::Collate { expr: inner, .. } => {
            return strong_name(inner);
        }
        Expr::Case { else_result: Some(otherwise), .. } => return strong_name(otherwise),
        Expr::Subquery(query) => return name_of_subquery(query),
        Expr::Extract { .. } => "extract",
        Expr::AtTimeZone { .. } => "timezone",
        Expr::Ceil { .. } => "ceil",
        Expr::Floor { .. } => "floor",
        Expr::Position { .. } => "position",
        Expr::Substring { .. } => "substring",
        Expr::Overlay { .. } => "overlay",
        Expr::Trim { trim_where: Some(ast::TrimWhereField::Leading), .. } => "ltrim",
        Expr::Trim { trim_where: Some(ast::TrimWhereField::Trailing), .. } => "rtrim",
        Expr::Trim { .. } => "btrim",
        Expr::Exists { .. } => "exists",
        Expr::Array(_) => "array",
        Expr::Tuple(_) => "row",
        _ => return None,
    };
    Some(fixed.to_owned())
}

/// A name that anything else goes before.
fn weak_name(expr: &Expr) -> Option<String> {
    let fixed = match expr {
        Expr::Case { .. } => "case",
        Expr::Cast { data_type, .. } => return Some(type_name(data_type)),
        Expr::TypedString(typed) => return Some(type_name(&typed.data_type)),
        Expr::Interval(_) => "interval",
        Expr::Nested(inner) => return weak_name(inner),
        Expr::Value(value) if matches!(value.value, ast::Value::Boolean(_)) => "bool",
        _ => return None,
    };
    Some(fixed.to_owned())
}

fn name_of_subquery(query: &ast::Query) -> Option<String> {
    let ast::SetExpr::Select(select) = &*query.body else {
        return None;
    };
    match select.projection.first()? {
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold_ident(alias)),
        _ => None,
    }
}

/// The internal name of a type, which is what Postgres calls a cast of a constant.
fn type_name(sql_type: &ast::DataType) -> String {
    use ast::DataType as Sql;
    let name = match sql_type {
        Sql::Bool | Sql::Boolean => "bool",
        Sql::SmallInt(_) | Sql::Int2(_) => "int2",
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => "int4",
        Sql::BigInt(_) | Sql::Int8(_) => "int8",
        Sql::Real | Sql::Float4 => "float4",
        Sql::DoublePrecision | Sql::Float8 | Sql::Double(_) | Sql::Float(_) => "float8",
        Sql::Numeric(_) | Sql::Decimal(_) | Sql::Dec(_) => "numeric",
        Sql::Varchar(_) | Sql::CharacterVarying(_) | Sql::CharVarying(_) => "varchar",
        Sql::Char(_) | Sql::Character(_) => "bpchar",
        Sql::Timestamp(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => "timestamp",
        Sql::Timestamp(..) => "timestamptz",
        Sql::Time(..) => "time",
        Sql::Interval { .. } => "interval",
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}
