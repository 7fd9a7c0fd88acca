//! `tidemark drva events`: what happened, and what happens.

use crate::failure::Outcome;
use crate::ui::{Reader, Ui};
use clap::{Args, ValueEnum};
use std::time::Duration;
use tidemark_api::{Client, Error, Event, EventPage, EventQuery, ProblemKind, Severity};

/// One question waits so long.
const WAIT_S: u32 = 30;
/// Pause before asking an appliance again that is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Show what happened lately
///
/// The appliance remembers the newest 10,000 events.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Go on with what happens, until interrupted; with --json one line each
    #[arg(long, short)]
    follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// Only events that matter at least so much
    #[arg(long, value_enum, default_value_t = Least::Info)]
    severity: Least,
    /// Only events of this domain
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Least {
    Info,
    Warning,
    Error,
}

impl From<Least> for Severity {
    fn from(least: Least) -> Self {
        match least {
            Least::Info => Self::Info,
            Least::Warning => Self::Warning,
            Least::Error => Self::Error,
        }
    }
}

pub(super) async fn run(args: EventsArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    let wanted = |event: &Event| {
        event.severity >= args.severity.into() && (args.domain.is_none() || event.domain == args.domain)
    };
    if args.follow {
        return follow(args.after, wanted, client, ui).await;
    }
    let mut after = args.after;
    let mut all = Vec::new();
    loop {
        let page = client.events(EventQuery { after, ..Default::default() }).await?;
        lost(&page, ui);
        after = page.last_seq;
        if page.events.is_empty() {
            break;
        }
        all.extend(page.events.into_iter().filter(wanted));
    }
    ui.answer(&all, |all| all.iter().map(|event| in_text(event) + "\n").collect())?;
    Ok(Outcome::Done)
}

/// Goes on through restarts of the appliance, once it has answered.
async fn follow(mut after: u64, wanted: impl Fn(&Event) -> bool, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    let mut instance = None;
    let mut away = false;
    loop {
        match client.events(EventQuery { after, wait_s: WAIT_S, ..Default::default() }).await {
            Ok(page) if instance.as_ref().is_some_and(|known| *known != page.instance) => {
                ui.say("the appliance was started anew");
                (instance, after, away) = (Some(page.instance), 0, false);
            }
            Ok(page) => {
                lost(&page, ui);
                (after, away) = (page.last_seq, false);
                instance = Some(page.instance);
                if print(page.events.into_iter().filter(&wanted), ui)? == Reader::Gone {
                    return Ok(Outcome::Done);
                }
            }
            Err(error) if instance.is_some() && is_away(&error) => {
                if !std::mem::replace(&mut away, true) {
                    ui.say(format_args!("waiting for the appliance: {error}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_away(error: &Error) -> bool {
    error.kind() == ProblemKind::Unavailable
}

fn lost(page: &EventPage, ui: &Ui) {
    if page.lost > 0 {
        ui.say(format_args!("{} older events are no longer kept", page.lost));
    }
}

fn print(mut events: impl Iterator<Item = Event>, ui: &Ui) -> anyhow::Result<Reader> {
    events.try_fold(Reader::Listens, |reader, event| match reader {
        Reader::Listens => ui.one_of_many(&event, in_text),
        Reader::Gone => Ok(Reader::Gone),
    })
}

fn in_text(event: &Event) -> String {
    let about = [&event.domain, &event.vm, &event.disk].into_iter().flatten().map(String::as_str);
    let about = about.collect::<Vec<_>>().join("/");
    let about = if about.is_empty() { about } else { format!(" {about}") };
    format!("{} {:<7} {}{about}: {}", event.time, event.severity.name(), event.kind, event.message)
}
