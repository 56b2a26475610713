//! A view that fails: what it takes along, and what goes on. No query makes a view fail that is not a bug, so the failure
//! is the tests' own.

use std::sync::Arc;
use std::time::Duration;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Config, Settings};
use crate::server::Running;
use crate::session::{Response, Session, settings};

/// How long a statement may take that has to wait for nobody.
const STATEMENT_BOUND: Duration = Duration::from_secs(10);

const OBJECTS: &str = "
    CREATE TABLE t (g INT, x BIGINT);
    CREATE MATERIALIZED VIEW sums AS SELECT g, sum(x) AS x FROM t GROUP BY g;
    CREATE VIEW plain AS SELECT x FROM sums WHERE x > 0;
    CREATE MATERIALIZED VIEW reader AS SELECT count(*) AS n FROM plain;
    CREATE MATERIALIZED VIEW far AS SELECT reader.n, t.g FROM reader JOIN t ON reader.n = t.g;
    CREATE MATERIALIZED VIEW other AS SELECT g, count(*) AS n FROM t GROUP BY g;
    INSERT INTO t VALUES (1, 1), (2, 2)";

async fn start(data: &tempfile::TempDir, workers: usize) -> Running {
    let data = Some(data.path().display().to_string());
    let config = Config::load(Settings { data, workers: Some(workers), ..Settings::default() }, None).unwrap();
    Running::start(config, CancellationToken::new()).await.unwrap()
}

/// Runs statements, each in its time; gives the rows of all, as text.
async fn run(server: &Arc<Server>, sql: &str) -> Result<Vec<String>, SqlError> {
    let session = Session::new(server.clone(), "test", settings::Settings::from_startup([]));
    let mut lines = Vec::new();
    for statement in session.parse(sql)? {
        let executed = async {
            let Response::Rows { stream, .. } = session.execute(&statement, vec![]).await? else { return Ok(vec![]) };
            stream.try_collect::<Vec<_>>().await
        };
        let batches =
            tokio::time::timeout(STATEMENT_BOUND, executed).await.unwrap_or_else(|_| panic!("{sql} waits"))?;
        let options = FormatOptions::default().with_null("NULL");
        for batch in batches {
            let columns: Vec<_> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            lines.extend(
                (0..batch.num_rows()).map(|row| {
                    columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")
                }),
            );
        }
    }
    Ok(lines)
}

fn id_of(server: &Server, name: &str) -> RelationId {
    server.catalog.state().find(None, name).unwrap().id()
}

const FAILED: &str = "SELECT name, error, hint FROM freshet_catalog.view_status WHERE state = 'failed' ORDER BY name";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_over_a_failed_view_fail_with_it_and_hold_back_nobody() {
    for workers in [1, 2] {
        let data = tempfile::tempdir().unwrap();
        let running = start(&data, workers).await;
        let server = &running.server;
        run(server, OBJECTS).await.unwrap();
        assert_eq!(run(server, "SELECT n FROM reader").await.unwrap(), ["2"]);
        fail(server, id_of(server, "sums"), "out of luck");
        let hint = "use DROP MATERIALIZED VIEW sums CASCADE, and create the view";
        let expected = [
            format!(
                "far|reads materialized view \"sums\", which has failed: out of luck|{hint}s again without the cause"
            ),
            format!(
                "reader|reads materialized view \"sums\", which has failed: out of luck|{hint}s again without the cause"
            ),
            format!("sums|out of luck|{hint} again without the cause"),
        ];
        assert_eq!(run(server, FAILED).await.unwrap(), expected);
        // More epochs than may be in flight, and a checkpoint.
        for n in 0..10 {
            run(server, &format!("INSERT INTO t VALUES (3, {n})")).await.unwrap();
        }
        run(server, "CHECKPOINT").await.unwrap();
        assert_eq!(run(server, "SELECT * FROM other ORDER BY g").await.unwrap(), ["1|1", "2|1", "3|10"]);
        // What they held last stays readable, alone.
        assert_eq!(run(server, "SELECT n FROM reader").await.unwrap(), ["2"]);
        let refused = run(server, "SELECT * FROM reader, other").await.unwrap_err();
        assert_eq!(refused.state, SqlState::ObjectNotInPrerequisiteState);
        let refused = run(server, "CREATE MATERIALIZED VIEW late AS SELECT * FROM far").await.unwrap_err();
        assert_eq!(refused.message, "cannot read materialized view \"far\": it has failed");
        assert!(refused.detail.unwrap().ends_with("which has failed: out of luck"));
        running.stop().await.unwrap();
        // After a restart they are computed again.
        let running = start(&data, workers).await;
        let server = &running.server;
        assert_eq!(run(server, "SELECT n FROM reader").await.unwrap(), ["3"]);
        assert_eq!(run(server, FAILED).await.unwrap(), [""; 0]);
        run(server, "DROP MATERIALIZED VIEW sums CASCADE").await.unwrap();
        running.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_fails_while_it_hydrates_is_told_of() {
    let data = tempfile::tempdir().unwrap();
    let running = start(&data, 1).await;
    let server = &running.server;
    run(server, "CREATE TABLE t (g INT, x BIGINT); INSERT INTO t SELECT n, n FROM generate_series(1, 300000) AS s(n)")
        .await
        .unwrap();
    let create = "CREATE MATERIALIZED VIEW sums AS SELECT g, sum(x) AS x FROM t GROUP BY g";
    let failing = async {
        while server.catalog.state().find(None, "sums").is_none() {
            tokio::task::yield_now().await;
        }
        fail(server, id_of(server, "sums"), "out of luck");
    };
    let (created, ()) = tokio::join!(run(server, create), failing);
    let error = created.unwrap_err();
    assert_eq!(error.state, SqlState::ObjectNotInPrerequisiteState);
    assert_eq!(error.detail.as_deref(), Some("out of luck"));
    run(server, "DROP MATERIALIZED VIEW sums; DELETE FROM t WHERE g > 10").await.unwrap();
    run(server, create).await.unwrap();
    assert_eq!(run(server, "SELECT count(*), sum(x) FROM sums").await.unwrap(), ["10|55"]);
    running.stop().await.unwrap();
}
