//! Dead letters of long ago, and more than a page of them: in journals that the library filled before callhook starts.

use std::sync::Arc;

use callhook::event::{CallId, Event, EventId, EventType, Item, Origin, Payload, Share, Spent};
use callhook::journal::{DeadLetter, Journal};
use callhook::receiver::{ReceiverId, ReceiverName, Receivers};
use callhook::time::{timestamp_now, unix_millis};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::journal::Journal as Kept;
use crate::support::record::LIMIT;
use crate::support::service::{Answer, IGNORING_SIGXFSZ, Service, run};

const HOUR: u64 = 60 * 60 * 1000;

/// The next place is that of the last one, and one.
fn item(place: u64, id: EventId, receiver: ReceiverId) -> Item {
    let (call, kind) = (CallId::random(), EventType::DtmfDigit);
    let event = Arc::new(Event::new(id, call, kind, &timestamp_now(), &Payload::empty()));
    let (origin, share) = match receiver {
        ReceiverId::MAIN => (Origin::Relayed, Share::Own),
        _ => (Origin::Copy, Share::Nth(0)),
    };
    Item { receiver, sequence: 1, share, ..Item::new(event, place, origin) }
}

/// Given up so many milliseconds ago.
fn letter(item: Item, ago: u64) -> DeadLetter {
    let spent = Spent { attempts: 1, first_failed_at: None };
    DeadLetter {
        item: Item { spent, ..item },
        status: Some(422),
        code: "ERR_BAD_REQUEST".to_owned(),
        error: "Request failed with status code 422".to_owned(),
        answer: None,
        last_at: unix_millis() - ago,
    }
}

/// Fills a journal of the receivers main and crm.
fn filled(fill: impl FnOnce(ReceiverId) -> (Vec<Item>, Vec<DeadLetter>)) -> Kept {
    let kept = Kept::new();
    let names = [ReceiverName::main(), "crm".parse().unwrap()];
    let receivers = Receivers::new(names);
    let (journal, _) = Journal::in_file(&kept.path(), &receivers, 100_000).unwrap();
    let (items, letters) = fill(receivers.id("crm").unwrap());
    journal.put(items, letters);
    journal.close();
    kept
}

/// So many dead letters of crm, and after them so many events that wait for it.
fn of_crm(letters: u64, waiting: u64) -> Kept {
    filled(|crm| {
        let next = |place| item(place, EventId::make(), crm);
        let waiting = (letters..letters + waiting).map(next).collect();
        (waiting, (0..letters).map(|place| letter(next(place), 0)).collect())
    })
}

/// A service on the journal, without crm.
async fn serve(kept: &Kept) -> Service {
    let path = kept.path();
    let path = path.to_str().expect("a path of plain text");
    let vars = [("WEBHOOK_URL", "none"), ("JOURNAL_PATH", path)];
    Service::start_under(&IGNORING_SIGXFSZ, &vars).await
}

async fn ask(service: &Service, method: &str, path: &str) -> Answer {
    service.ask_admin(method, path, &[]).await
}

async fn dead(service: &Service, arguments: &[&str]) -> (i32, String, String) {
    let port = service.admin().await.port().to_string();
    run(&[&["dead"], arguments].concat(), &[("ADMIN_PORT", &port)]).await
}

/// What is left, each as `id at receiver`.
async fn letters(service: &Service, query: &str) -> Vec<String> {
    let page = ask(service, "GET", &format!("/api/dead{query}")).await.json();
    let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| format!("{} at {}", text(item, "id"), text(item, "receiver"))).collect()
}

fn ages() -> Kept {
    let given = |id| EventId::given(id).unwrap();
    filled(|crm| {
        let old = letter(item(0, given("again"), ReceiverId::MAIN), 2 * HOUR);
        let of_crm = letter(item(1, given("copy"), crm), 2 * HOUR);
        let young = letter(item(2, given("again"), ReceiverId::MAIN), 0);
        (Vec::new(), vec![old, of_crm, young])
    })
}

#[tokio::test]
async fn a_purge_takes_what_is_old_and_no_younger_letter_with_the_same_id() {
    let kept = ages();
    let service = serve(&kept).await;
    let (code, out, err) =
        dead(&service, &["purge", "--older-than", "1h", "--receiver", "main"]).await;
    assert_eq!((code, out.as_str()), (0, "1 deleted\n"), "{err}");
    assert_eq!(letters(&service, "").await, ["copy at crm", "again at main"]);
    let (code, out, err) = dead(&service, &["purge", "--older-than", "1h"]).await;
    assert_eq!((code, out.as_str()), (0, "1 deleted\n"), "{err}");
    assert_eq!(letters(&service, "").await, ["again at main"]);
    let (code, out, err) = dead(&service, &["purge", "--older-than", "99y"]).await;
    assert_eq!((code, out.as_str()), (0, "0 deleted\n"), "{err}");
}

#[tokio::test]
async fn a_letter_was_given_up_since_or_before_a_time() {
    let kept = ages();
    let service = serve(&kept).await;
    let page = ask(&service, "GET", "/api/dead").await.json();
    let young = page["items"][2]["last_at"].as_str().unwrap();
    let since = format!("?since={young}");
    assert_eq!(letters(&service, &since).await, ["again at main"]);
    let before = format!("?before={young}");
    assert_eq!(letters(&service, &before).await, ["again at main", "copy at crm"]);
    let between = format!("?since={young}&before={young}");
    assert_eq!(letters(&service, &between).await, Vec::<String>::new());
    let wrong = ask(&service, "DELETE", "/api/dead?before=soon").await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    assert!(wrong.error().contains("before: expected a time"), "{wrong:?}");
    let deleted = ask(&service, "DELETE", &format!("/api/dead{before}&receiver=crm")).await.json();
    assert_eq!(deleted, json!({"deleted": 1, "waiting": 0}));
}

#[tokio::test]
async fn what_waits_for_a_receiver_that_is_gone_is_dropped_a_thousand_at_a_time() {
    let kept = of_crm(2, 2500);
    let service = serve(&kept).await;
    let (code, out, err) = dead(&service, &["purge", "--receiver", "crm"]).await;
    assert_eq!((code, out.as_str()), (0, "2 deleted, and 2500 that waited\n"), "{err}");
    // A list waits for what is to be written.
    assert_eq!(letters(&service, "").await, Vec::<String>::new());
    let metrics = ask(&service, "GET", "/metrics").await.body;
    let of = |name: &str| {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name}:\n{metrics}")).to_owned()
    };
    let batches = "callhook_journal_batch_changes";
    let (all, small) =
        (of(&format!("{batches}_count")), of(&format!("{batches}_bucket{{le=\"1000.0\"}}")));
    assert_eq!(small, all, "none had more than a thousand changes");
    drop(service);
    let service = serve(&kept).await;
    let state = ask(&service, "GET", "/api/state").await.json();
    assert_eq!(state["retired"], json!([]), "{state}");
}

#[tokio::test]
async fn a_purge_that_the_disk_breaks_off_says_what_is_gone_and_can_be_repeated() {
    let kept = of_crm(1001, 3);
    let service = serve(&kept).await;
    service.limit_files(Some(0));
    let broken = ask(&service, "DELETE", "/api/dead?receiver=crm").await;
    assert_eq!(broken.status, 503, "{broken:?}");
    assert!(broken.error().contains("1000 were deleted before"), "{broken:?}");
    let state = ask(&service, "GET", "/api/state").await.json();
    assert_eq!(state["retired"][0]["waiting"], 3, "{state}");
    service.limit_files(None);
    let repeated = async {
        loop {
            let answer = ask(&service, "DELETE", "/api/dead?receiver=crm").await;
            if answer.status == 200 {
                return answer.json();
            }
        }
    };
    let repeated = timeout(LIMIT, repeated).await.expect("the disk is well again");
    assert_eq!(repeated, json!({"deleted": 1, "waiting": 3}));
}
