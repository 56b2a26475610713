//! `SUBSCRIBE [TO] name | (query) [WITH (SNAPSHOT, PROGRESS, UPSERT, EXPIRED)] [AS OF instant]`.

use datafusion::sql::sqlparser::tokenizer::Token;
use freshet_types::SqlError;

use super::options::{boolean, option_value, unknown_option};
use super::query;
use super::tokens::Tokens;
use crate::statement::{Expression, Subscribe, SubscribeTarget};

pub(super) fn subscribe(tokens: &mut Tokens) -> Result<Subscribe, SqlError> {
    tokens.expect("SUBSCRIBE")?;
    let _to = tokens.accept("TO");
    let target = if tokens.accept_token(&Token::LParen) {
        let query = query::query(tokens)?;
        tokens.expect_token(&Token::RParen)?;
        SubscribeTarget::Query(query)
    } else {
        SubscribeTarget::Relation(tokens.object_name()?)
    };
    let mut subscribe =
        Subscribe { target, snapshot: true, progress: false, upsert: false, expired: false, as_of: None };
    if tokens.accept("WITH") {
        tokens.parenthesized(|tokens| option(tokens, &mut subscribe))?;
    }
    if tokens.accept("AS OF") {
        subscribe.as_of = Some(Expression::new(tokens.expression()?));
    }
    Ok(subscribe)
}

/// `NAME [= true | false]`
fn option(tokens: &mut Tokens, subscribe: &mut Subscribe) -> Result<(), SqlError> {
    let position = tokens.position();
    let name = tokens.word()?;
    let value = match tokens.peek() {
        Token::Comma | Token::RParen => "true".to_owned(),
        _ => {
            let _equals = tokens.accept_token(&Token::Eq);
            option_value(tokens)?
        }
    };
    let value = boolean(&name, &value).map_err(|error| error.with_position(position))?;
    match name.as_str() {
        "snapshot" => subscribe.snapshot = value,
        "progress" => subscribe.progress = value,
        "upsert" => subscribe.upsert = value,
        "expired" => subscribe.expired = value,
        _ => return Err(unknown_option(&name, &["snapshot", "progress", "upsert", "expired"]).with_position(position)),
    }
    Ok(())
}
