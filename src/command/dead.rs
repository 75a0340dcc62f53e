//! `callhook dead`: the dead letters of the running callhook, from a shell, through its admin port.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::inspector::AdminSettings;
use crate::inspector::dead::{DeadItem, DeadPage, Deleted, Replayed};
use crate::text::{innermost, printable};
use crate::time::{millis, unix_millis, unix_millis_of};
use crate::wire::client_builder;

/// How long an answer may take: a replay of all can be long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do with dead letters.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// List them, oldest first
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
        /// Print one JSON object a line, with payloads
        #[arg(long)]
        json: bool,
    },
    /// Send them again
    #[command(after_help = "Example: callhook dead replay --all")]
    Replay {
        /// The ids, as `callhook dead list` shows them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All there are
        #[arg(long)]
        all: bool,
    },
    /// Delete those that were given up long ago
    #[command(after_help = "Example: callhook dead purge --older-than 30d")]
    Purge {
        /// How long ago: 90s, 30m, 12h, 7d
        #[arg(long, value_parser = humantime::parse_duration)]
        older_than: Duration,
    },
}

/// Why the running callhook did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no port to ask.
    #[error("ADMIN_PORT=0 takes a free port, so it cannot be known which; set ADMIN_PORT")]
    UnknownPort,
    /// Nobody answered.
    #[error(
        "{url}: nobody answers ({cause}); is callhook running, with these ADMIN_HOST and ADMIN_PORT?"
    )]
    NoAnswer {
        /// What was asked.
        url: String,
        /// The innermost reason.
        cause: String,
    },
    /// It refused.
    #[error("{url} was answered {status}: {error}")]
    Refused {
        /// What was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        error: String,
    },
}

/// A refusal.
#[derive(Deserialize)]
struct Told {
    error: String,
}

/// The admin port, as a client reaches it.
struct Client<'a> {
    http: reqwest::Client,
    base: Url,
    settings: &'a AdminSettings,
}

/// Does what the command says and prints what came of it.
///
/// # Errors
/// [`ClientError`], naming what was asked.
pub async fn run(command: Command, settings: &AdminSettings) -> Result<(), ClientError> {
    let client = Client::new(settings)?;
    match command {
        Command::List { call, r#type, since, json } => {
            let filter = [("call", call), ("type", r#type), ("since", since)];
            let mut count = 0;
            client
                .each(&filter, |item| {
                    count += 1;
                    print_item(item, count, json);
                })
                .await?;
            if count == 0 && !json {
                println!("no dead letters");
            }
        }
        Command::Replay { all: true, .. } => {
            let Replayed { replayed, left } = client.ask(Method::POST, &["replay"], &[]).await?;
            println!("{replayed} under way again, {left} found no room in the queue");
        }
        Command::Replay { ids, .. } => {
            for id in ids {
                let _: Replayed = client.ask(Method::POST, &[&id, "replay"], &[]).await?;
                println!("{id} is under way again");
            }
        }
        Command::Purge { older_than } => {
            println!("{} deleted", client.purge(older_than).await?);
        }
    }
    Ok(())
}

impl<'a> Client<'a> {
    fn new(settings: &'a AdminSettings) -> Result<Self, ClientError> {
        if settings.listen.port == 0 {
            return Err(ClientError::UnknownPort);
        }
        let address = format!("http://{}/api/dead", settings.listen.reachable());
        let base = Url::parse(&address).expect("a checked host and a port make a URL");
        let built = client_builder("http").timeout(PATIENCE).build();
        let http = built
            .map_err(|error| ClientError::NoAnswer { url: address, cause: innermost(&error) })?;
        Ok(Self { http, base, settings })
    }

    /// Goes through all pages.
    async fn each(
        &self,
        filter: &[(&str, Option<String>)],
        mut visit: impl FnMut(&DeadItem),
    ) -> Result<(), ClientError> {
        let mut cursor = None;
        loop {
            let set = filter.iter().filter_map(|(name, value)| Some((*name, value.clone()?)));
            let mut query: Vec<(&str, String)> = set.collect();
            query.extend(cursor.map(|cursor: u64| ("cursor", cursor.to_string())));
            let page: DeadPage = self.ask(Method::GET, &[], &query).await?;
            page.items.iter().for_each(&mut visit);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn purge(&self, older_than: Duration) -> Result<usize, ClientError> {
        let latest = unix_millis().saturating_sub(millis(older_than));
        let mut old = Vec::new();
        self.each(&[], |item| {
            if unix_millis_of(&item.last_at).is_ok_and(|last| last <= latest) {
                old.push(item.id.clone());
            }
        })
        .await?;
        let mut deleted = 0;
        for id in old {
            let answer: Deleted = self.ask(Method::DELETE, &[&id], &[]).await?;
            deleted += answer.deleted;
        }
        Ok(deleted)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url.clone());
        if let Some(token) = &self.settings.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let no_answer = |error: reqwest::Error| ClientError::NoAnswer {
            url: url.to_string(),
            cause: innermost(&error),
        };
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let body = response.bytes().await.map_err(no_answer)?;
        let refused = |error: String| ClientError::Refused { url: url.to_string(), status, error };
        if !status.is_success() {
            let told: Option<Told> = serde_json::from_slice(&body).ok();
            return Err(refused(
                told.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), |told| told.error),
            ));
        }
        serde_json::from_slice(&body).map_err(|error| refused(error.to_string()))
    }
}

fn print_item(item: &DeadItem, count: usize, json: bool) {
    if json {
        println!("{}", serde_json::to_string(item).expect("an item came as JSON"));
        return;
    }
    if count == 1 {
        println!(
            "{:<24}  {:<14}  {:<36}  {:<36}  {:>8}  WHY",
            "GIVEN UP", "TYPE", "CALL", "ID", "ATTEMPTS"
        );
    }
    println!(
        "{:<24}  {:<14}  {:<36}  {:<36}  {:>8}  {} {}",
        item.last_at,
        printable(&item.r#type),
        item.uuid,
        printable(&item.id),
        item.attempts,
        item.code,
        printable(&item.error),
    );
}
