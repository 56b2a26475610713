//! Files of checkpoints that are damaged: what can be had again is had again, and nothing wrong is ever served.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use freshet_sql_tests::kafka::Kafka;
use freshet_sql_tests::server::ServerConfig;
use freshet_sql_tests::{Server, oracle};

/// Damages in each file, of each kind.
const PLACES: usize = 14;

#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit is another.
    Flip(usize),
    /// The file ends there.
    Cut(usize),
    Gone,
}

/// How often a damage led to what.
#[derive(Debug, Default)]
struct Outcomes {
    unnoticed: usize,
    views_computed_again: usize,
    sources_read_again: usize,
    refused: usize,
}

#[tokio::test]
async fn a_damaged_checkpoint_costs_time_or_is_reported() -> Result<()> {
    let kafka = Kafka::shared().await?;
    kafka.create_topic("damage", 1).await?;
    let records: Vec<String> =
        (0..400).map(|n| if n % 2 == 0 { format!("garbage {n:0200}") } else { format!("{{\"n\":{n}}}") }).collect();
    kafka.produce_texts("damage", &records.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let arguments = vec!["--checkpoint-interval".into(), "1h".into()];
    let mut server = Server::start_with(ServerConfig { arguments, workers: 2, ..ServerConfig::default() }).await?;
    let client = server.connect().await?;
    let objects = format!(
        "CREATE SOURCE damage (n INT) WITH (connector = 'kafka', topic = 'damage', bootstrap_servers = '{}',
         start = 'earliest') FORMAT PLAIN ENCODE JSON;
         CREATE TABLE t (id INT PRIMARY KEY, s TEXT);
         CREATE MATERIALIZED VIEW of_t AS SELECT id % 50 AS g, count(*) AS n, max(s) AS s FROM t GROUP BY id % 50;
         CREATE MATERIALIZED VIEW of_view AS SELECT n, count(*) AS groups FROM of_t GROUP BY n;
         CREATE MATERIALIZED VIEW of_source AS SELECT n % 7 AS d, count(*) AS n, min(n) AS least FROM damage GROUP BY n % 7;
         CREATE MATERIALIZED VIEW joined AS SELECT t.id, damage.n FROM t JOIN damage ON t.id = damage.n;
         INSERT INTO t SELECT n::INT, 'row ' || n FROM generate_series(1, 300) AS g(n)",
        kafka.bootstrap_servers()
    );
    client.run(&objects).await?;
    client.wait_for("SELECT sum(n) FROM of_source", &[&["200"]]).await?;
    client.run("CHECKPOINT").await?;
    server.kill_hard()?;

    let copy = tempfile::tempdir()?;
    copy_folder(server.data(), copy.path())?;
    let mut outcomes = Outcomes::default();
    for file in files(server.data())? {
        let length = usize::try_from(std::fs::metadata(&file)?.len())?;
        let places = (0..PLACES).map(|place| 4 + place * length / PLACES);
        let damages = places.clone().map(Damage::Flip).chain(places.step_by(5).map(Damage::Cut)).chain([Damage::Gone]);
        for damage in damages {
            let case = format!("{damage:?} of {length} bytes in {}", file.display());
            make(damage, &file)?;
            look(&mut server, &file, &mut outcomes).await.context(case)?;
            server.kill_hard()?;
            std::fs::remove_dir_all(server.data())?;
            copy_folder(copy.path(), server.data())?;
        }
    }
    let Outcomes { views_computed_again, sources_read_again, refused, .. } = outcomes;
    ensure!(views_computed_again > 0 && sources_read_again > 0 && refused > 0, "{outcomes:?}");
    Ok(())
}

async fn look(server: &mut Server, file: &Path, outcomes: &mut Outcomes) -> Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
    if let Err(error) = server.start_again().await {
        let said = format!("{error:#}");
        let told = [name, "cannot bring back \"t\"", "put this file back", "nothing has been changed"];
        if let Some(missing) = told.into_iter().find(|part| !said.contains(part)) {
            bail!("it does not say {missing:?}: {said}");
        }
        outcomes.refused += 1;
        return Ok(());
    }
    let client = server.connect().await?;
    client.wait_for("SELECT count(*), sum(id), count(DISTINCT s) FROM t", &[&["300", "45150", "300"]]).await?;
    client.wait_for("SELECT sum(n) FROM of_source", &[&["200"]]).await?;
    client.wait_for("SELECT count(*), count(DISTINCT \"offset\") FROM damage_dead_letters", &[&["200", "200"]]).await?;
    oracle::check(&client).await?;
    let log = server.log();
    let damaged: Vec<&String> = log.iter().filter(|line| line.contains("damaged")).collect();
    ensure!(damaged.iter().all(|line| line.contains("WARN") && line.contains(name)), "{damaged:?}");
    outcomes.views_computed_again += damaged.iter().filter(|line| line.contains("view=")).count();
    outcomes.sources_read_again += damaged.iter().filter(|line| line.contains("source=")).count();
    outcomes.unnoticed += usize::from(damaged.is_empty());
    // All is whole again.
    client.run("CHECKPOINT").await?;
    server.kill_hard()?;
    server.start_again().await?;
    ensure!(server.log().iter().all(|line| !line.contains("damaged")), "{}", server.log_tail());
    oracle::check(&server.connect().await?).await
}

fn make(damage: Damage, file: &Path) -> Result<()> {
    match damage {
        Damage::Flip(place) => {
            let mut bytes = std::fs::read(file)?;
            *bytes.get_mut(place).context("a place in the file")? ^= 0x10;
            Ok(std::fs::write(file, bytes)?)
        }
        Damage::Cut(place) => Ok(std::fs::File::options().write(true).open(file)?.set_len(place as u64)?),
        Damage::Gone => Ok(std::fs::remove_file(file)?),
    }
}

fn files(data: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(data.join("checkpoints"))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status()?;
    ensure!(copied.success(), "cannot copy the data folder");
    Ok(())
}
