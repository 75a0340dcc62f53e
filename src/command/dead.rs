//! `callhook dead`: the dead letters of the running callhook, from a shell, through its admin port.

use std::time::Duration;

use reqwest::Method;

use super::client::{Client, ClientError};
use crate::inspector::AdminSettings;
use crate::inspector::dead::{DeadItem, DeadPage, Deleted, Replayed};
use crate::output::print_line;
use crate::text::printable;
use crate::time::{millis, timestamp_of, unix_millis};

/// What goes to all of them can be long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeadCommand {
    /// List dead letters, oldest first
    #[command(
        after_help = "Example: callhook dead list --type call_ended --since 2026-01-31T00:00:00Z"
    )]
    List {
        /// Only those of this receiver
        #[arg(long)]
        receiver: Option<String>,
        /// Only those of this call (its UUID)
        #[arg(long)]
        call: Option<String>,
        /// Only those of this event type
        #[arg(long)]
        r#type: Option<String>,
        /// Only those given up at or after this time, such as 2026-01-31T12:00:00Z
        #[arg(long)]
        since: Option<String>,
        /// Print one JSON object per line, with payloads
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters again; exit code 1 where some find no room in the queue
    #[command(after_help = "Example: callhook dead replay --all")]
    Replay {
        /// Their ids, as `callhook dead list` shows them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        /// Only at this receiver
        #[arg(long)]
        receiver: Option<String>,
    },
    /// Delete dead letters that were given up long ago, or all of a receiver
    #[command(after_help = "Example: callhook dead purge --older-than 30d")]
    Purge {
        /// How long ago, such as 90s, 30m, 12h or 7d
        #[arg(long, value_parser = humantime::parse_duration, required_unless_present = "receiver")]
        older_than: Option<Duration>,
        /// Only those of this receiver; if it is not in the settings any more and --older-than is not given, also what
        /// waits for it
        #[arg(long)]
        receiver: Option<String>,
    },
}

/// How the command fails.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("dead letters that found no room in the queue: {0}; replay them once there is room")]
    Left(usize),
}

/// Runs the command, and prints the result.
///
/// # Errors
/// [`DeadError`], naming what was asked, or how many letters found no room.
pub async fn run(command: DeadCommand, settings: &AdminSettings) -> Result<(), DeadError> {
    let mut client = Client::new("ADMIN", &settings.listen, PATIENCE)?;
    client.token = settings.tokens.first();
    match command {
        DeadCommand::List { receiver, call, r#type, since, json } => {
            let filter =
                [("receiver", receiver), ("call", call), ("type", r#type), ("since", since)];
            let mut count = 0;
            let print = |item: &DeadItem| {
                count += 1;
                print_item(item, count, json);
            };
            each(&client, &filter, print).await?;
            if count == 0 && !json {
                print_line(format_args!("no dead letters"));
            }
        }
        DeadCommand::Replay { all: true, receiver, .. } => {
            let done: Replayed =
                client.ask(Method::POST, &["api", "dead", "replay"], &only(receiver)).await?;
            print_line(told(&done));
            check_left(done.left)?;
        }
        DeadCommand::Replay { ids, receiver, .. } => {
            replay(&client, &ids, receiver).await?;
        }
        DeadCommand::Purge { older_than: Some(older_than), receiver } => {
            let before = timestamp_of(unix_millis().saturating_sub(millis(older_than)));
            let query = [only(receiver), vec![("before", before)]].concat();
            let Deleted { deleted, .. } =
                client.ask(Method::DELETE, &["api", "dead"], &query).await?;
            print_line(format_args!("{deleted} deleted"));
        }
        DeadCommand::Purge { older_than: None, receiver } => {
            let Deleted { deleted, waiting } =
                client.ask(Method::DELETE, &["api", "dead"], &only(receiver)).await?;
            print_line(format_args!("{deleted} deleted, and {waiting} that waited"));
        }
    }
    Ok(())
}

fn only(receiver: Option<String>) -> Vec<(&'static str, String)> {
    receiver.map(|name| ("receiver", name)).into_iter().collect()
}

/// An id means several letters: what found no room at one receiver may have found it at another.
async fn replay(
    client: &Client,
    ids: &[String],
    receiver: Option<String>,
) -> Result<(), DeadError> {
    let query = only(receiver);
    let mut all_left = 0;
    for id in ids {
        let path = ["api", "dead", id, "replay"];
        let done: Replayed = client.ask(Method::POST, &path, &query).await?;
        print_line(format_args!("{id}: {}", told(&done)));
        all_left += done.left;
    }
    check_left(all_left)
}

fn told(Replayed { replayed, left }: &Replayed) -> String {
    format!("{replayed} queued again, {left} found no room in the queue")
}

fn check_left(left: usize) -> Result<(), DeadError> {
    if left == 0 { Ok(()) } else { Err(DeadError::Left(left)) }
}

/// Goes through all pages.
async fn each(
    client: &Client,
    filter: &[(&str, Option<String>)],
    mut visit: impl FnMut(&DeadItem),
) -> Result<(), ClientError> {
    let mut cursor = None;
    loop {
        let set = filter.iter().filter_map(|(name, value)| Some((*name, value.clone()?)));
        let mut query: Vec<(&str, String)> = set.collect();
        query.extend(cursor.map(|cursor: u64| ("cursor", cursor.to_string())));
        let page: DeadPage = client.ask(Method::GET, &["api", "dead"], &query).await?;
        page.items.iter().for_each(&mut visit);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn print_item(item: &DeadItem, count: usize, json: bool) {
    if json {
        print_line(serde_json::to_string(item).expect("an item came as JSON"));
        return;
    }
    if count == 1 {
        print_line(format_args!(
            "{:<24}  {:<8}  {:<14}  {:<36}  {:<36}  {:>8}  WHY",
            "GIVEN UP", "RECEIVER", "TYPE", "CALL", "ID", "ATTEMPTS"
        ));
    }
    print_line(format_args!(
        "{:<24}  {:<8}  {:<14}  {:<36}  {:<36}  {:>8}  {} {}",
        item.last_at,
        printable(&item.receiver),
        printable(&item.r#type),
        item.uuid,
        printable(&item.id),
        item.attempts,
        item.code,
        printable(&item.error),
    ));
}
