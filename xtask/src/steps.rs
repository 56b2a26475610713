//! Steps of a chore: each announced, timed, and listed at the end.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The steps done so far.
#[derive(Debug, Default)]
pub struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Runs one step, and says how long it took.
    pub fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("==> {name}");
        let start = Instant::now();
        let outcome = step();
        let duration = start.elapsed();
        match &outcome {
            Ok(()) => println!("==> {name}: ok in {:.1} s", duration.as_secs_f64()),
            Err(_) => println!("==> {name}: FAILED after {:.1} s", duration.as_secs_f64()),
        }
        self.done.push((name.to_owned(), duration));
        outcome.with_context(|| format!("{name} failed"))
    }

    /// Lists all steps with their durations.
    pub fn summary(&self) {
        println!("==> all steps passed");
        for (name, duration) in &self.done {
            println!("    {:>8.1} s  {name}", duration.as_secs_f64());
        }
    }
}

/// Runs a command with its output as it is.
pub fn run_command(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("`{name} {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}
