//! `callhook dead`: the dead letters of the running callhook, from a shell, through its admin port.

use std::time::Duration;

use reqwest::Method;

use super::client::{Client, ClientError};
use crate::inspector::AdminSettings;
use crate::inspector::dead::{DeadItem, DeadPage, Deleted, Replayed};
use crate::output::print_line;
use crate::text::printable;
use crate::time::{millis, unix_millis, unix_millis_of};

/// A replay of all can be long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, clap::Subcommand)]
pub enum DeadCommand {
    /// List dead letters, oldest first
    #[command(
        after_help = "Example: callhook dead list --type call_ended --since 2026-01-31T00:00:00Z"
    )]
    List {
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
    /// Send dead letters again
    #[command(after_help = "Example: callhook dead replay --all")]
    Replay {
        /// Their ids, as `callhook dead list` shows them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Delete dead letters that were given up long ago
    #[command(after_help = "Example: callhook dead purge --older-than 30d")]
    Purge {
        /// How long ago, such as 90s, 30m, 12h or 7d
        #[arg(long, value_parser = humantime::parse_duration)]
        older_than: Duration,
    },
}

/// Runs the command, and prints the result.
///
/// # Errors
/// [`ClientError`], naming what was asked.
pub async fn run(command: DeadCommand, settings: &AdminSettings) -> Result<(), ClientError> {
    let mut client = Client::new("ADMIN", &settings.listen, PATIENCE)?;
    client.token = settings.tokens.first();
    match command {
        DeadCommand::List { call, r#type, since, json } => {
            let filter = [("call", call), ("type", r#type), ("since", since)];
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
        DeadCommand::Replay { all: true, .. } => {
            let Replayed { replayed, left } =
                client.ask(Method::POST, &["api", "dead", "replay"], &[]).await?;
            print_line(format_args!("{replayed} queued again, {left} found no room in the queue"));
        }
        DeadCommand::Replay { ids, .. } => {
            for id in ids {
                let path = ["api", "dead", &id, "replay"];
                let _: Replayed = client.ask(Method::POST, &path, &[]).await?;
                print_line(format_args!("{id} is queued again"));
            }
        }
        DeadCommand::Purge { older_than } => {
            print_line(format_args!("{} deleted", purge(&client, older_than).await?));
        }
    }
    Ok(())
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

async fn purge(client: &Client, older_than: Duration) -> Result<usize, ClientError> {
    let latest = unix_millis().saturating_sub(millis(older_than));
    let mut old = Vec::new();
    let note = |item: &DeadItem| {
        if unix_millis_of(&item.last_at).is_ok_and(|last| last <= latest) {
            old.push(item.id.clone());
        }
    };
    each(client, &[], note).await?;
    let mut deleted = 0;
    for id in old {
        let answer: Deleted = client.ask(Method::DELETE, &["api", "dead", &id], &[]).await?;
        deleted += answer.deleted;
    }
    Ok(deleted)
}

fn print_item(item: &DeadItem, count: usize, json: bool) {
    if json {
        print_line(serde_json::to_string(item).expect("an item came as JSON"));
        return;
    }
    if count == 1 {
        print_line(format_args!(
            "{:<24}  {:<14}  {:<36}  {:<36}  {:>8}  WHY",
            "GIVEN UP", "TYPE", "CALL", "ID", "ATTEMPTS"
        ));
    }
    print_line(format_args!(
        "{:<24}  {:<14}  {:<36}  {:<36}  {:>8}  {} {}",
        item.last_at,
        printable(&item.r#type),
        item.uuid,
        printable(&item.id),
        item.attempts,
        item.code,
        printable(&item.error),
    ));
}
