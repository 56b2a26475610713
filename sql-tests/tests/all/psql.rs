//! psql's own commands, which ask the system catalogs in their own ways.

use anyhow::{Context, Result};
use freshet_sql_tests::{Server, psql};
use futures::StreamExt;
use tokio_postgres::SimpleQueryMessage;

async fn server() -> Result<Server> {
    let server = Server::start(1).await?;
    let client = server.connect().await?;
    client
        .run(
            "CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner TEXT NOT NULL, balance NUMERIC(18,2) DEFAULT 0, opened TIMESTAMP);
             CREATE VIEW rich AS SELECT owner FROM accounts WHERE balance > 1000;
             CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(balance) AS balance FROM accounts;
             COMMENT ON TABLE accounts IS 'who has what'",
        )
        .await?;
    Ok(server)
}

/// What psql prints for one command, in its unaligned form: fields between `|`.
async fn unaligned(server: &Server, command: &str) -> Result<Vec<String>> {
    let address = server.postgres();
    let command = command.to_owned();
    let text =
        tokio::task::spawn_blocking(move || psql::run(address, &["\\pset format unaligned", &command])).await??;
    Ok(text.lines().skip(1).map(str::to_owned).collect())
}

#[tokio::test]
async fn lists_of_relations() -> Result<()> {
    let server = server().await?;
    let all = unaligned(&server, "\\d").await?;
    for line in ["public|accounts|table|", "public|rich|view|", "public|total|materialized view|"] {
        assert!(all.iter().any(|found| found.starts_with(line)), "{line} in {all:#?}");
    }
    assert_eq!(all.len(), 6, "a title, a heading, three relations, a count: {all:#?}");
    for (command, line) in
        [("\\dt", "public|accounts|table|"), ("\\dv", "public|rich|view|"), ("\\dm", "public|total|materialized view|")]
    {
        let lines = unaligned(&server, command).await?;
        assert!(lines.iter().any(|found| found.starts_with(line)), "{command}: {lines:#?}");
        assert_eq!(lines.len(), 4, "{command}: {lines:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_description_of_a_table() -> Result<()> {
    let server = server().await?;
    let lines = unaligned(&server, "\\d accounts").await?;
    let expected = [
        "Table \"public.accounts\"",
        "Column|Type|Collation|Nullable|Default",
        "id|bigint||not null|",
        "owner|text||not null|",
        "balance|numeric(18,2)|||0",
        "opened|timestamp without time zone|||",
    ];
    assert_eq!(lines[..6], expected, "{lines:#?}");
    let index = lines.iter().any(|line| line.contains("\"accounts_pkey\" PRIMARY KEY"));
    assert!(index, "{lines:#?}");
    Ok(())
}

#[tokio::test]
async fn the_descriptions_of_views() -> Result<()> {
    let server = server().await?;
    let lines = unaligned(&server, "\\d total").await?;
    assert_eq!(lines[0], "Materialized view \"public.total\"");
    assert_eq!(lines[2], "n|bigint|||", "{lines:#?}");
    let lines = unaligned(&server, "\\d rich").await?;
    assert_eq!(lines[0], "View \"public.rich\"");
    assert!(lines[2].starts_with("owner|text|"), "{lines:#?}");
    let lines = unaligned(&server, "\\sv rich").await?;
    assert!(lines.iter().any(|line| line.contains("SELECT owner FROM accounts")), "{lines:#?}");
    let lines = unaligned(&server, "\\d+ rich").await?;
    assert!(lines.iter().any(|line| line.contains("SELECT owner FROM accounts")), "{lines:#?}");
    let lines = unaligned(&server, "\\dt+ accounts").await?;
    assert!(lines.iter().any(|line| line.contains("who has what")), "{lines:#?}");
    Ok(())
}

#[tokio::test]
async fn other_lists_answer() -> Result<()> {
    let server = server().await?;
    for command in ["\\l", "\\dn", "\\du", "\\df", "\\dT", "\\di", "\\ds", "\\conninfo", "\\encoding", "\\dx", "\\dp"] {
        unaligned(&server, command).await?;
    }
    let schemas = unaligned(&server, "\\dn").await?;
    assert!(schemas.iter().any(|line| line.starts_with("public|")), "{schemas:#?}");
    let databases = unaligned(&server, "\\l").await?;
    assert!(databases.iter().any(|line| line.starts_with("freshet|")), "{databases:#?}");
    Ok(())
}

#[tokio::test]
async fn results_and_errors_look_as_they_should() -> Result<()> {
    let server = server().await?;
    let address = server.postgres();
    let text = tokio::task::spawn_blocking(move || {
        psql::run(address, &["INSERT INTO accounts VALUES (1, 'ann', 5.5, '2024-01-01')", "SELECT * FROM accounts"])
    })
    .await??;
    let expected = "INSERT 0 1
 id | owner | balance |       opened        
----+-------+---------+---------------------
  1 | ann   |    5.50 | 2024-01-01 00:00:00
(1 row)

";
    assert_eq!(text, expected);
    let failure = tokio::task::spawn_blocking(move || psql::run(address, &["SELECT * FROM account"])).await?;
    let message = failure.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("ERROR:  relation \"account\" does not exist"), "{message}");
    Ok(())
}

/// The next result that psql prints: its rows without their epochs.
async fn next_result(psql: &mut psql::Running) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    loop {
        let line = psql.line().await?.context("psql has ended")?;
        match line.split_once('|') {
            Some(("_epoch", _)) => {}
            Some((_, row)) => rows.push(row.to_owned()),
            None if line.ends_with("rows)") || line.ends_with("row)") => {
                rows.sort_unstable();
                return Ok(rows);
            }
            None => {}
        }
    }
}

/// psql prints complete results only, so it is given one after the other.
#[tokio::test]
async fn a_subscription_is_printed_as_it_goes_on() -> Result<()> {
    let server = server().await?;
    let client = server.connect().await?;
    client.run("INSERT INTO accounts VALUES (1, 'ann', 5, NULL)").await?;
    // The last command would only run if the subscription had ended by itself.
    let commands = ["\\pset format unaligned", "SUBSCRIBE total WITH (SNAPSHOT = true)", "SELECT 'not reached' AS x"];
    let mut psql = psql::Running::start(server.postgres(), &commands)?;
    assert_eq!(next_result(&mut psql).await?, ["1|1|5.00"]);
    client.run("INSERT INTO accounts VALUES (2, 'bob', 1, NULL)").await?;
    assert_eq!(next_result(&mut psql).await?, ["-1|1|5.00", "1|2|6.00"]);
    // However many results many changes make, each change is in one.
    for id in 3..40 {
        client.run(&format!("INSERT INTO accounts VALUES ({id}, 'x', 0, NULL)")).await?;
    }
    let mut results = 0;
    let mut counts = vec![0_i64; 40];
    while counts[39] == 0 {
        for row in next_result(&mut psql).await? {
            let fields: Vec<&str> = row.split('|').collect();
            counts[fields[1].parse::<usize>()?] += fields[0].parse::<i64>()?;
        }
        results += 1;
    }
    // Each count came, and went again but for the last; the first had come before.
    let expected: Vec<i64> = (0..40).map(|n| i64::from(n == 39) - i64::from(n == 2)).collect();
    assert_eq!(counts, expected);
    assert!(results < 30, "what comes fast is gathered, but there were {results} results");
    psql.interrupt()?;
    while let Some(line) = psql.line().await? {
        assert!(!line.contains("not reached"), "{line}");
    }
    assert_eq!(client.value("SELECT 1").await?, "1");
    Ok(())
}

/// Any other client gets one result.
#[tokio::test]
async fn only_psql_gets_a_series_of_results() -> Result<()> {
    let server = server().await?;
    for (name, is_series) in [("psql", true), ("psycopg", false)] {
        let writer = server.connect().await?;
        let reader = server.connect().await?;
        reader.run(&format!("SET application_name = '{name}'")).await?;
        let mut messages = Box::pin(reader.simple_query_raw("SUBSCRIBE total WITH (SNAPSHOT = true)").await?);
        let (mut rows, mut heads) = (0, 0);
        while rows < 5 {
            match messages.next().await.context("the subscription ended")?? {
                SimpleQueryMessage::RowDescription(_) => heads += 1,
                SimpleQueryMessage::Row(_) => {
                    rows += 1;
                    if rows % 2 == 1 {
                        writer.run("DELETE FROM accounts; INSERT INTO accounts VALUES (1, 'a', 1, NULL)").await?;
                    }
                }
                _ => {}
            }
        }
        assert_eq!(heads > 1, is_series, "{name}: {heads} results");
    }
    Ok(())
}
