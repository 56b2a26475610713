//! `freshet`: reads its settings, starts the runtime, and stops in order when told to.

use std::process::ExitCode;

use clap::Parser;
use freshet_server::cli::{Cli, Command};
use freshet_server::config::Config;
use freshet_server::limits::THREAD_STACK_BYTES;
use freshet_server::{backup, demo, logging, restore, serve};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As shells count it: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: i32 = 130;
/// As `sysexits.h` has it for a configuration error.
const EXIT_CONFIG: u8 = 78;

#[expect(clippy::print_stderr, reason = "before logging starts there is nothing else")]
fn main() -> ExitCode {
    let (command, config) = match Cli::parse().resolve() {
        Ok(resolved) => resolved,
        Err(error) => {
            eprintln!("freshet: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Err(error) = logging::start(&config.log, config.log_format) {
        eprintln!("freshet: log: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    // Recovery plans views, and the process's first thread has whatever stack the shell allows.
    let deep = std::thread::Builder::new().name("freshet".to_owned()).stack_size(THREAD_STACK_BYTES);
    let ran = deep.spawn(move || run(command, config)).map(|thread| thread.join());
    match ran.unwrap_or_else(|error| Ok(Err(error.into()))).unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, config: Config) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().thread_name("freshet").thread_stack_size(THREAD_STACK_BYTES).build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let work = async {
            match command {
                Command::Serve => serve(config, shutdown.clone()).await,
                Command::Demo => demo::run(config, shutdown.clone()).await,
                Command::Backup { to, server } => backup::run(&to, &server).await,
                Command::Restore { from } => restore::run(&from, &config.data).await,
            }
        };
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = interrupt.recv() => stop(&shutdown),
                _ = terminate.recv() => stop(&shutdown),
            }
        }
    })
}

/// The first signal stops in order, the second at once.
fn stop(shutdown: &CancellationToken) {
    if shutdown.is_cancelled() {
        tracing::warn!("told to stop twice: stopping at once");
        std::process::exit(EXIT_INTERRUPTED);
    }
    tracing::info!("stopping; once more to stop at once");
    shutdown.cancel();
}
