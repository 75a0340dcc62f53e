//! A hang-up or a transfer that was asked for, and what else ends a call, in both orders and at the same moment: one end,
//! for one reason, and no request that is answered as taken is without effect.

use serde_json::Value;
use tokio::join;

use super::{DETAILS, PEOPLE, announced_call, ended_once, frames, known_end, next_of};
use crate::support::stage::{Call, Stage};
use crate::support::tools::{Tools, complaint};

/// A call whose agent has ten seconds queued.
async fn busy_call(stage: &Stage) -> Call {
    let call = announced_call(stage).await;
    call.session.audio(&frames(1, 500)).await;
    call.ear.at_least(1).await;
    call
}

/// The STS server closes, and callhook knows.
async fn sts_closes(call: &Call) {
    call.session.close().await;
    call.session.gone().await;
}

/// Reason, and where the dialplan is to go on.
async fn end(stage: &Stage, uuid: &str) -> (String, String) {
    let reason = known_end(stage, uuid).await["reason"].as_str().expect("a reason").to_owned();
    (reason, next_of(stage, uuid).await.1)
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_change_a_hang_up_and_voids_a_transfer() {
    let stage = Stage::set(&[DETAILS, PEOPLE]).await;
    let tools = Tools::of(&stage.service);
    let call = busy_call(&stage).await;
    tools.hung_up(&call.uuid).await;
    call.asterisk.hang_up().await;
    assert_eq!(end(&stage, &call.uuid).await, ("agent_hangup".to_owned(), String::new()));
    ended_once(&stage, &call.uuid, "agent_hangup").await;
    let call = busy_call(&stage).await;
    tools.transferred(&call.uuid, "100").await;
    call.asterisk.hang_up().await;
    assert_eq!(end(&stage, &call.uuid).await, ("hangup".to_owned(), String::new()));
    ended_once(&stage, &call.uuid, "hangup").await;
    let call = busy_call(&stage).await;
    call.asterisk.hang_up().await;
    known_end(&stage, &call.uuid).await;
    complaint(&tools.hang_up(&call.uuid).await, 404);
    complaint(&tools.transfer(&call.uuid, "100").await, 404);
    ended_once(&stage, &call.uuid, "hangup").await;
}

#[tokio::test]
async fn a_transfer_takes_the_place_of_a_hang_up_and_never_the_other_way_round() {
    let stage = Stage::set(&[DETAILS, PEOPLE]).await;
    let tools = Tools::of(&stage.service);
    let one = busy_call(&stage).await;
    tools.hung_up(&one.uuid).await;
    tools.transferred(&one.uuid, "100").await;
    sts_closes(&one).await;
    let other = busy_call(&stage).await;
    tools.transferred(&other.uuid, "100").await;
    assert!(
        tools.hung_up(&other.uuid).await.contains("already being transferred to extension 100")
    );
    // A second transfer changes where to.
    tools.transferred(&other.uuid, "200").await;
    sts_closes(&other).await;
    one.session.gone().await;
    for (call, next) in [(one, "people,100,1"), (other, "people,200,1")] {
        call.ear.hung_up().await;
        assert_eq!(end(&stage, &call.uuid).await, ("transfer".to_owned(), next.to_owned()));
        ended_once(&stage, &call.uuid, "transfer").await;
    }
}

#[tokio::test]
async fn an_sts_server_that_closes_changes_no_reason_before_or_after_a_request() {
    let stage = Stage::set(&[DETAILS, PEOPLE]).await;
    let tools = Tools::of(&stage.service);
    let calls = [
        busy_call(&stage).await,
        busy_call(&stage).await,
        busy_call(&stage).await,
        busy_call(&stage).await,
    ];
    let [hang_up_first, transfer_first, close_first, close_before_transfer] = &calls;
    tools.hung_up(&hang_up_first.uuid).await;
    tools.transferred(&transfer_first.uuid, "100").await;
    for call in &calls {
        sts_closes(call).await;
    }
    // Their goodbyes are played for seconds yet.
    tools.hung_up(&close_first.uuid).await;
    tools.transferred(&close_before_transfer.uuid, "200").await;
    for (call, reason, next) in [
        (hang_up_first, "agent_hangup", ""),
        (transfer_first, "transfer", "people,100,1"),
        (close_first, "agent_hangup", ""),
        (close_before_transfer, "transfer", "people,200,1"),
    ] {
        call.ear.hung_up().await;
        assert_eq!(super::heard(&call.ear, 1), 500, "all that was said is heard");
        assert_eq!(end(&stage, &call.uuid).await, (reason.to_owned(), next.to_owned()));
        ended_once(&stage, &call.uuid, reason).await;
    }
}

#[tokio::test]
async fn a_stop_changes_no_reason_that_is_pending() {
    let mut stage = Stage::set(&[DETAILS, PEOPLE, ("DRAIN_TIMEOUT", "6000")]).await;
    let tools = Tools::of(&stage.service);
    let (hung_up, sent_on, other) =
        (busy_call(&stage).await, busy_call(&stage).await, busy_call(&stage).await);
    tools.hung_up(&hung_up.uuid).await;
    tools.transferred(&sent_on.uuid, "100").await;
    stage.service.terminate();
    for (call, reason, next) in [
        (&hung_up, "agent_hangup", ""),
        (&sent_on, "transfer", "people,100,1"),
        (&other, "shutdown", ""),
    ] {
        // The front answers for a second more.
        assert_eq!(end(&stage, &call.uuid).await, (reason.to_owned(), next.to_owned()));
    }
    complaint(&Tools::of(&stage.service).hang_up(&other.uuid).await, 404);
    assert_eq!(stage.service.wait().await, 0);
    for (call, reason) in [(hung_up, "agent_hangup"), (sent_on, "transfer"), (other, "shutdown")] {
        ended_once(&stage, &call.uuid, reason).await;
    }
}

/// What ends a call at the very moment of a request.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    CallerHangsUp,
    StsCloses,
}

#[tokio::test]
async fn no_request_that_meets_the_end_is_taken_without_effect() {
    const ROUNDS: usize = 60;
    let stage = Stage::set(&[DETAILS, PEOPLE]).await;
    let mut taken = 0;
    for round in 0..ROUNDS {
        let meanwhile = [Meanwhile::CallerHangsUp, Meanwhile::StsCloses][round % 2];
        let transfers = round / 2 % 2 == 1;
        let call = announced_call(&stage).await;
        call.session.transcript("agent", "goodbye").await;
        stage.event(&call.uuid, "transcription").await;
        let (uuid, session) = (call.uuid.clone(), call.session.clone());
        let asks = async {
            let tools = Tools::of(&stage.service);
            match transfers {
                true => tools.transfer(&uuid, "100").await,
                false => tools.hang_up(&uuid).await,
            }
        };
        let ends = async {
            match meanwhile {
                Meanwhile::CallerHangsUp => call.asterisk.hang_up().await,
                Meanwhile::StsCloses => {
                    session.close().await;
                    // It is kept, so that nobody hangs up.
                    std::mem::forget(call.asterisk);
                }
            }
        };
        let (answer, ()) = match round / 4 % 2 {
            0 => join!(asks, ends),
            _ => {
                let ((), answer) = join!(ends, asks);
                (answer, ())
            }
        };
        let reason = known_end(&stage, &uuid).await["reason"].clone();
        let expected: &[&str] = match (answer.status, meanwhile, transfers) {
            (200, _, false) => &["agent_hangup"],
            (200, Meanwhile::StsCloses, true) => &["transfer"],
            // The caller may have gone during the goodbye.
            (200, Meanwhile::CallerHangsUp, true) => &["hangup"],
            (_, Meanwhile::CallerHangsUp, _) => &["hangup"],
            (_, Meanwhile::StsCloses, _) => &["sts_closed"],
        };
        let what = format!("{meanwhile:?}, transfers: {transfers}, {answer:?}");
        assert!(expected.contains(&reason.as_str().unwrap()), "{reason}: {what}");
        assert!([200, 404].contains(&answer.status), "{what}");
        ended_once(&stage, &uuid, reason.as_str().unwrap()).await;
        taken += usize::from(answer.status == 200);
    }
    println!("{taken} of {ROUNDS} were taken");
}

#[tokio::test]
async fn a_call_that_is_still_connecting_ends_at_once_for_the_reason_that_was_asked() {
    use crate::support::event::new_uuid;
    use crate::support::sts::{Manner, Sts};
    let stage = Stage::with(Sts::start(Manner::Mute).await, &[DETAILS]).await;
    let uuid = new_uuid();
    let asterisk = stage.dial(&uuid).await;
    stage.sts.connected(1).await;
    Tools::of(&stage.service).hung_up(&uuid).await;
    asterisk.ear().hung_up().await;
    let asked = |line: &Value| line["message"] == "a call is asked to end" && line["by"] == "agent";
    assert_eq!(stage.service.log_line(asked).await["answer"], "taken");
    ended_once(&stage, &uuid, "agent_hangup").await;
}
