//! Cuts an `INSERT … VALUES` into one statement a row, in another order.
//!
//! A view must not care how its input was cut into batches (I-2). Only statements that mean the same when cut are cut:
//! a plain list of rows, nothing after it.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// One statement a row of `sql`, shuffled by `seed`; `None` where it is not a plain insert of several rows.
pub fn cut(sql: &str, seed: u64) -> Option<Vec<String>> {
    let (head, rows) = rows_of_insert(sql)?;
    if rows.len() < 2 {
        return None;
    }
    let mut statements: Vec<String> = rows.iter().map(|row| format!("{head}{row}")).collect();
    statements.shuffle(&mut StdRng::seed_from_u64(seed));
    Some(statements)
}

/// The text up to and including `VALUES `, and each row with its parentheses.
fn rows_of_insert(sql: &str) -> Option<(&str, Vec<&str>)> {
    let mut words = sql.split_whitespace();
    if !words.next()?.eq_ignore_ascii_case("insert") || !words.next()?.eq_ignore_ascii_case("into") {
        return None;
    }
    let tokens = top_level(sql)?;
    let values = tokens.iter().position(|token| token.text(sql).eq_ignore_ascii_case("values"))?;
    let head = &sql[..tokens[values].end];
    let mut rows = Vec::new();
    let mut rest = tokens[values + 1..].iter();
    loop {
        let row = rest.next()?;
        if !row.text(sql).starts_with('(') {
            return None;
        }
        rows.push(row.text(sql));
        match rest.next().map(|token| token.text(sql)) {
            Some(",") => {}
            Some(";") if rest.next().is_none() => return Some((head, rows)),
            None => return Some((head, rows)),
            Some(_) => return None,
        }
    }
}

/// A piece of the statement outside all parentheses: a word, a comma, or a whole parenthesis.
#[derive(Debug, Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
}

impl Token {
    fn text(self, sql: &str) -> &str {
        &sql[self.start..self.end]
    }
}

/// The statement cut at its top level. `None` where parentheses or quotes do not match, or comments occur.
fn top_level(sql: &str) -> Option<Vec<Token>> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at = match bytes[at] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'(' => end_of_parenthesis(bytes, at)?,
            b',' | b';' => at + 1,
            b'"' | b'\'' => end_of_quote(bytes, at)?,
            b'-' if bytes.get(at + 1) == Some(&b'-') => return None,
            _ => {
                let length = sql[at..].find(|c: char| c.is_whitespace() || "(,;'\"".contains(c));
                length.map_or(bytes.len(), |length| at + length)
            }
        };
        tokens.push(Token { start, end: at });
    }
    Some(tokens)
}

fn end_of_parenthesis(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at = match bytes.get(at)? {
            b')' => return Some(at + 1),
            b'(' => end_of_parenthesis(bytes, at)?,
            b'"' | b'\'' => end_of_quote(bytes, at)?,
            _ => at + 1,
        };
    }
}

/// A doubled quote inside is, for this purpose, the end of one quote and the start of the next.
fn end_of_quote(bytes: &[u8], open: usize) -> Option<usize> {
    let length = bytes[open + 1..].iter().position(|byte| *byte == bytes[open])?;
    Some(open + 1 + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(sql: &str) -> Option<Vec<String>> {
        let mut statements = cut(sql, 7)?;
        statements.sort();
        Some(statements)
    }

    #[test]
    fn rows_are_cut_at_the_top_level_only() {
        let cut = sorted("INSERT INTO t (a, b) VALUES\n (1, '(x), it''s'), (f(2, 3), \"c)\");").unwrap();
        assert_eq!(
            cut,
            ["INSERT INTO t (a, b) VALUES(1, '(x), it''s')", "INSERT INTO t (a, b) VALUES(f(2, 3), \"c)\")"]
        );
    }

    #[test]
    fn what_does_not_mean_the_same_is_left_whole() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (1), (2) RETURNING a",
            "INSERT INTO t VALUES (1), (1) ON CONFLICT DO NOTHING",
            "INSERT INTO t SELECT * FROM (VALUES (1), (2)) v",
            "DELETE FROM t",
            "INSERT INTO t VALUES (1), (2",
            "INSERT INTO t VALUES (1), -- one\n (2)",
        ] {
            assert_eq!(cut(sql, 7), None, "{sql}");
        }
    }

    #[test]
    fn the_order_follows_the_seed() {
        let sql = "INSERT INTO t VALUES (1), (2), (3), (4), (5), (6), (7), (8)";
        assert_eq!(cut(sql, 1), cut(sql, 1));
        assert_ne!(cut(sql, 1), cut(sql, 2));
    }
}
