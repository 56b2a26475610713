//! The command line, and how the server starts.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::Result;
use freshet_sql_tests::{Server, server};

fn freshet(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(server::binary()?).args(arguments).output()?)
}

#[test]
fn help_tells_the_commands() -> Result<()> {
    let output = freshet(&["--help"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success());
    for word in ["serve", "demo", "--help"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let text = String::from_utf8(freshet(&["serve", "--help"])?.stdout)?;
    for word in ["--data", "--listen", "--http", "--workers", "--memory", "FRESHET_DATA"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    Ok(())
}

#[test]
fn wrong_arguments_are_refused_with_words() -> Result<()> {
    for arguments in [&["serve", "--wrokers", "2"][..], &["serve", "--listen", "nowhere"], &["serve", "--workers", "0"]]
    {
        let output = freshet(arguments)?;
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() -> Result<()> {
    let server = Server::start(1).await?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    let taken = server.postgres().to_string();
    let output = freshet(&["serve", "--data", &data, "--listen", &taken, "--http", "127.0.0.1:0"])?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&taken), "{output:?}");
    Ok(())
}

/// The aim is one second; on a machine that runs other tests it may be a few.
#[tokio::test]
async fn the_server_starts_quickly() -> Result<()> {
    let start = Instant::now();
    let server = Server::start(1).await?;
    server.connect().await?.run("SELECT 1").await?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    Ok(())
}
