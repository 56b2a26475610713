//! psql's own commands, which ask the system catalogs in their own ways.

use anyhow::Result;
use freshet_sql_tests::{Server, psql};

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
