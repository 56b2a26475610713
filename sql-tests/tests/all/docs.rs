//! The examples in the documentation run: every block marked ```` ```sql freshet-test ```` is executed, a page at a
//! time, each page on a server of its own. With ```` ```sql freshet-test kafka ```` there is a broker, where the block says
//! `localhost:9092`, that has the topics that it names.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use freshet_sql_tests::kafka::Kafka;
use freshet_sql_tests::{Client, Server, oracle};

/// A block of SQL in a page, and the line it starts at.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    line: usize,
    sql: String,
    needs_kafka: bool,
}

#[tokio::test]
async fn every_example_runs() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs/src"))? {
        pages.push(entry?.path());
    }
    pages.sort();
    let mut count = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let examples = examples(&text);
        if examples.is_empty() {
            continue;
        }
        count += examples.len();
        let server = Server::start(2).await?;
        let client = server.connect().await?;
        for mut example in examples {
            if example.needs_kafka {
                example.sql = with_broker(&example.sql).await?;
            }
            run(&client, &example).await.with_context(|| format!("{}:{}", page.display(), example.line))?;
        }
    }
    ensure!(count > 0, "no page has an example");
    Ok(())
}

/// Statements are run one by one, as psql does.
async fn run(client: &Client, example: &Example) -> Result<()> {
    for statement in example.sql.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        client.run(statement).await?;
        oracle::check(client).await?;
    }
    Ok(())
}

/// The block with the address of a broker that has its topics.
async fn with_broker(sql: &str) -> Result<String> {
    let kafka = Kafka::shared().await?;
    for topic in sql.split("topic = '").skip(1).filter_map(|rest| rest.split('\'').next()) {
        kafka.create_topic(topic, 1).await?;
    }
    Ok(sql.replace("localhost:9092", &kafka.bootstrap_servers()))
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let needs_kafka = line.trim() == "```sql freshet-test kafka";
        if needs_kafka || line.trim() == "```sql freshet-test" {
            let body: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            examples.push(Example { line: number + 1, sql: body.join("\n") + "\n", needs_kafka });
        }
    }
    examples
}

#[test]
fn only_marked_blocks_are_examples() {
    let page = "# Page\n```sql\nSELECT 0;\n```\n```sql freshet-test\nSELECT 1;\nSELECT 2;\n```\n";
    let expected = Example { line: 5, sql: "SELECT 1;\nSELECT 2;\n".to_owned(), needs_kafka: false };
    assert_eq!(examples(page), [expected]);
}
