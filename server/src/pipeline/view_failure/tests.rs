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
        let hint = "use ALTER MATERIALIZED VIEW sums RESTART once the cause is gone";
        let expected = [
            format!("far|reads materialized view \"sums\", which has failed: out of luck|{hint}"),
            format!("reader|reads materialized view \"sums\", which has failed: out of luck|{hint}"),
            format!("sums|out of luck|{hint}"),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_restarted_is_computed_again_with_those_over_it() {
    for workers in [1, 2] {
        let data = tempfile::tempdir().unwrap();
        let running = start(&data, workers).await;
        let server = &running.server;
        run(server, OBJECTS).await.unwrap();
        run(server, "CHECKPOINT").await.unwrap();
        let refused = run(server, "ALTER MATERIALIZED VIEW sums RESTART").await.unwrap_err();
        assert_eq!(refused.message, "materialized view \"sums\" has neither failed nor paused");
        for round in 1..=3 {
            fail(server, id_of(server, "sums"), "out of luck");
            run(server, "INSERT INTO t VALUES (3, 1), (1, 1)").await.unwrap();
            let refused = run(server, "ALTER MATERIALIZED VIEW reader RESTART").await.unwrap_err();
            assert_eq!(refused.message, "cannot read materialized view \"sums\": it has failed");
            run(server, "ALTER MATERIALIZED VIEW sums RESTART").await.unwrap();
            let sums = run(server, "SELECT g, x FROM sums ORDER BY g").await.unwrap();
            assert_eq!(sums, [format!("1|{}", 1 + round), "2|2".to_owned(), format!("3|{round}")]);
            assert_eq!(run(server, "SELECT far.n, g FROM far JOIN other USING (g)").await.unwrap().len(), round);
            assert_eq!(run(server, FAILED).await.unwrap(), [""; 0]);
            // Changes reach it, and it is part of the next checkpoint as it is now.
            run(server, "INSERT INTO t VALUES (4, 4); DELETE FROM t WHERE g = 4").await.unwrap();
            run(server, "CHECKPOINT").await.unwrap();
        }
        running.stop().await.unwrap();
        let running = start(&data, workers).await;
        let server = &running.server;
        assert_eq!(run(server, "SELECT count(*), sum(x) FROM sums").await.unwrap(), ["3|9"]);
        run(server, "INSERT INTO t VALUES (3, 1)").await.unwrap();
        assert_eq!(run(server, "SELECT x FROM sums WHERE g = 3").await.unwrap(), ["4"]);
        running.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_reads_two_that_failed_waits_for_both() {
    let data = tempfile::tempdir().unwrap();
    let running = start(&data, 1).await;
    let server = &running.server;
    run(server, OBJECTS).await.unwrap();
    run(server, "CREATE MATERIALIZED VIEW pairs AS SELECT sums.g, n FROM sums JOIN other USING (g)").await.unwrap();
    fail(server, id_of(server, "sums"), "out of luck");
    fail(server, id_of(server, "other"), "out of luck as well");
    run(server, "ALTER MATERIALIZED VIEW sums RESTART").await.unwrap();
    let failed: Vec<String> =
        run(server, FAILED).await.unwrap().iter().map(|row| row.split('|').next().unwrap().to_owned()).collect();
    assert_eq!(failed, ["other", "pairs"]);
    run(server, "ALTER MATERIALIZED VIEW other RESTART").await.unwrap();
    assert_eq!(run(server, "SELECT * FROM pairs ORDER BY g").await.unwrap(), ["1|1", "2|1"]);
    assert_eq!(run(server, FAILED).await.unwrap(), [""; 0]);
    running.stop().await.unwrap();
}
