//! Readiness: looks until a check holds, or its time is over.

use crate::hypervisor::{Guest, Hypervisor};
use std::process::Stdio;
use std::time::Duration;
use tidemark_format::with_causes;
use tidemark_runbook::{Check, Probe, Script};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// One look may take so long.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Of what a script says, so much stands in its error.
const SAID_BYTES_MAX: usize = 400;

/// What scripts find in their environment.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// Waits until the check holds.
///
/// # Errors
/// In words: what the last look met, when the time is over.
pub(crate) async fn wait_for(
    check: &Check,
    guest: &Guest,
    hypervisor: &dyn Hypervisor,
    variables: &Variables,
) -> Result<(), String> {
    let until = Instant::now() + check.timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let look = timeout(left.min(LOOK_MAX), look(&check.probe, guest, hypervisor, variables)).await;
        let why = match look {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() + check.every >= until {
            return Err(format!("not within {} ms: {why}", check.timeout.as_millis()));
        }
        sleep(check.every).await;
    }
}

async fn look(probe: &Probe, guest: &Guest, hypervisor: &dyn Hypervisor, variables: &Variables) -> Result<(), String> {
    match probe {
        Probe::Agent => hypervisor.agent_answers(guest).await.map_err(|e| with_causes(&e)),
        Probe::Console(text) => {
            let said = hypervisor.console(guest).await.map_err(|e| with_causes(&e))?;
            let found = said.windows(text.len()).any(|window| window == text.as_bytes());
            if found { Ok(()) } else { Err(format!("the console does not show {text:?}")) }
        }
        Probe::Tcp(address) => TcpStream::connect(address.as_str()).await.map(drop).map_err(|e| e.to_string()),
        Probe::Http { url, status } => {
            let answer = reqwest::get(url.as_str()).await.map_err(|e| with_causes(&e))?;
            let found = answer.status().as_u16();
            if found == *status { Ok(()) } else { Err(format!("it answers {found}")) }
        }
        Probe::Command(command) => run(command, variables).await,
    }
}

/// Runs a script of a runbook.
///
/// # Errors
/// In words, with what it said last.
pub(crate) async fn run_script(script: &Script, variables: &Variables) -> Result<(), String> {
    match timeout(script.timeout, run(&script.command, variables)).await {
        Ok(ended) => ended,
        Err(_) => Err(format!("it did not end within {} ms", script.timeout.as_millis())),
    }
}

async fn run(command: &[String], variables: &Variables) -> Result<(), String> {
    let output = Command::new(&command[0])
        .args(&command[1..])
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| format!("{}: {e}", command[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    let from = said.char_indices().rev().nth(SAID_BYTES_MAX).map_or(0, |(at, _)| at);
    Err(format!("{}: {}", output.status, &said[from..]))
}
