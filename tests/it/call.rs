//! A bridged call as its parties see it: what the STS server is told, which events the receiver gets, which
//! URL is used, and what the operator reads.

use crate::support::asterisk::{AUDIO, BEAT};
use crate::support::event::new_uuid;
use crate::support::receiver::{Receiver, Reply};
use crate::support::service::{Service, level, run, serve};
use crate::support::sound::{bytes_of, voice};
use crate::support::stage::Stage;
use crate::support::sts::{Manner, Sts};
use serde_json::{Value, json};

/// Everything there is goes to the receiver.
const ALL: (&str, &str) = ("WEBHOOK_EVENTS", "*");
const DETAILS: (&str, &str) = ("CALL_ENDED_DETAILS", "true");
const DIGITS: &str = "0123456789*#ABCD";

fn text(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn init_is_the_first_message_and_comes_once() {
    let stage = Stage::set(&[]).await;
    let uuid = new_uuid();
    let mut asterisk = stage.dial(&uuid).await;
    asterisk.digit('5').await;
    asterisk.silence(10).await;
    let session = stage.sts.session_of(&uuid).await;
    assert_eq!(session.init().await, json!({ "type": "init", "uuid": uuid }));
    session.message("dtmf_digit", 1).await;
    session.audio_of(1).await;
    assert_eq!(session.inits().len(), 1);
}

#[tokio::test]
async fn caller_audio_arrives_as_pcm_frame_by_frame() {
    let stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    let pcm = bytes_of(&voice(50 * 160));
    call.asterisk.play(AUDIO, pcm.chunks(320)).await;
    assert_eq!(call.session.audio_of(pcm.len()).await, pcm);
    let sizes: Vec<usize> = call.session.audio_messages().iter().map(Vec::len).collect();
    assert_eq!(sizes, [320; 50]);
}

#[tokio::test]
async fn a_call_makes_its_events_in_order_and_each_once() {
    let mut stage = Stage::set(&[("AGENT_ID", "agent-7")]).await;
    let uuid = new_uuid();
    stage.announce(&uuid, json!({ "from": "2000" })).await;
    let call = stage.call_of(&uuid).await;
    let mut asterisk = call.asterisk;
    call.session.transcript("agent", "Hello").await;
    stage.event(&uuid, "transcription").await;
    asterisk.digit('1').await;
    stage.event(&uuid, "dtmf_digit").await;
    call.session.audio(&[7; 32_000]).await;
    call.ear.at_least(1).await;
    call.session.interruption().await;
    stage.event(&uuid, "interruption").await;
    asterisk.hang_up().await;
    stage.event(&uuid, "call_ended").await;
    stage.close().await;
    let expected = [
        "call_initiated",
        "call_started",
        "transcription",
        "dtmf_digit",
        "interruption",
        "call_ended",
    ];
    assert_eq!(stage.kinds(&uuid), expected);
    let events = stage.events(&uuid);
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.header("x-avr-webhook-sequence"), Some(&*(n + 1).to_string()));
        assert_eq!(event.header("x-avr-agent-id"), Some("agent-7"));
        assert!(event.body["payload"].is_object(), "{event:?}");
    }
    let times: Vec<&str> = events.iter().filter_map(|one| one.body["timestamp"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(stage.receiver.in_flight_peak_of(&uuid), 1);
}

#[tokio::test]
async fn transcripts_of_both_roles_are_events_with_role_and_text_and_nothing_more() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    let said = [("user", "Perché no?"), ("agent", "\"Sì\" \u{1f44d}\n"), ("user", "")];
    for (role, text) in &said {
        let message = json!({ "type": "transcript", "role": role, "text": text, "final": true });
        call.session.say(message).await;
    }
    call.session.transcript("user", "the end").await;
    let payloads = stage.receiver.until("the last transcript", |seen| {
        let payloads = seen.iter().filter(|seen| seen.kind() == "transcription");
        let payloads: Vec<Value> = payloads.map(|seen| seen.body["payload"].clone()).collect();
        payloads.last().is_some_and(|last| last["text"] == "the end").then_some(payloads)
    });
    let payloads = payloads.await;
    for ((role, text), payload) in said.iter().zip(&payloads).take(2) {
        assert_eq!(*payload, json!({ "role": role, "text": text }));
    }
}

#[tokio::test]
async fn every_digit_reaches_the_receiver_and_the_sts_server_in_order() {
    let stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    for digit in DIGITS.chars() {
        call.asterisk.digit(digit).await;
    }
    let told = call.session.message("dtmf_digit", DIGITS.len()).await;
    let expected: Vec<Value> =
        DIGITS.chars().map(|digit| json!({ "type": "dtmf_digit", "digit": digit })).collect();
    assert_eq!(told, expected);
    let seen = stage.receiver.seen(1 + DIGITS.len()).await;
    let digits: Vec<Value> = seen[1..].iter().map(|seen| seen.body["payload"].clone()).collect();
    let expected: Vec<Value> = DIGITS.chars().map(|digit| json!({ "digit": digit })).collect();
    assert_eq!(digits, expected);
    assert!(seen[1..].iter().all(|seen| seen.kind() == "dtmf_digit"));
}

#[tokio::test]
async fn an_announced_call_gets_its_url_with_the_payload_as_query() {
    let stage = Stage::set(&[]).await;
    let uuid = new_uuid();
    let payload = json!({ "from": "2000", "channel": "PJSIP/2000-00000013", "recording": false });
    let answer = stage.announce(&uuid, payload).await.json();
    let call = stage.call_of(&uuid).await;
    assert_eq!(call.session.target, "/?from=2000&channel=PJSIP%2F2000-00000013&recording=false");
    let url = answer["sts_url"].as_str().expect("a URL").to_owned();
    assert_eq!(url.strip_prefix(&stage.sts.url), Some(&*call.session.target));
}

#[tokio::test]
async fn an_announcement_in_another_spelling_of_the_uuid_is_that_calls() {
    let stage = Stage::set(&[]).await;
    let uuid = new_uuid();
    stage.announce(&uuid.to_uppercase().replace('-', ""), json!({ "from": "1" })).await;
    let call = stage.call_of(&uuid).await;
    assert_eq!(call.session.target, "/?from=1");
    assert_eq!(stage.event(&uuid, "call_started").await.uuid(), uuid);
}

#[tokio::test]
async fn a_call_that_nobody_announced_gets_sts_url_as_it_is() {
    let sts = Sts::start(Manner::Usual).await;
    let url = format!("{}/agent?tenant=7", sts.url);
    let stage = Stage::with(sts, &[]).await;
    drop(stage.service);
    let vars = [("WEBHOOK_URL", stage.receiver.url.as_str()), ("STS_URL", url.as_str())];
    let stage = Stage { service: Service::start(&vars).await, ..stage };
    let call = stage.call().await;
    assert_eq!(call.session.target, "/agent?tenant=7");
    assert_eq!(stage.event(&call.uuid, "call_started").await.uuid(), call.uuid);
    assert_eq!(stage.kinds(&call.uuid), ["call_started"], "nobody initiated it");
    let line =
        |line: &Value| text(line).starts_with("Connecting to STS WebSocket: ws://127.0.0.1:");
    assert_eq!(level(&stage.service.log_line(line).await), "info");
}

#[tokio::test]
async fn the_receivers_decision_is_followed_and_logged() {
    let chosen = Sts::start(Manner::Usual).await;
    let route = format!("{}/vip?from=routed", chosen.url);
    let receiver = Receiver::start(move |seen| match seen.kind() {
        "call_initiated" => Reply::route(&route),
        _ => Reply::ok(),
    })
    .await;
    let stage = Stage::of(receiver, Sts::start(Manner::Usual).await, &[]).await;
    let uuid = new_uuid();
    let answer = stage.announce(&uuid, json!({ "from": "2000", "to": "5001" })).await.json();
    assert_eq!(answer["override"], true);
    let _asterisk = stage.dial(&uuid).await;
    let session = chosen.session_of(&uuid).await;
    assert_eq!(session.target, "/vip?from=routed&to=5001");
    assert_eq!(stage.sts.connections().len(), 0, "the fallback was left alone");
    stage
        .service
        .log_line(|line| text(line).starts_with("Overriding STS URL: ws://127.0.0.1:"))
        .await;
    stage.service.log_line(|line| text(line).starts_with("Connecting to STS WebSocket: ")).await;
}

#[tokio::test]
async fn without_any_sts_url_a_call_has_its_events_and_digits() {
    let receiver = Receiver::content().await;
    let mut stage = Stage {
        service: serve(&receiver.url, &[DETAILS]).await,
        sts: Sts::start(Manner::Usual).await,
        receiver,
    };
    let uuid = new_uuid();
    let mut asterisk = stage.dial(&uuid).await;
    stage.event(&uuid, "call_started").await;
    asterisk.silence(25).await;
    asterisk.digit('7').await;
    stage.event(&uuid, "dtmf_digit").await;
    let ear = asterisk.ear();
    asterisk.hang_up().await;
    stage.ended_by(&uuid, "hangup").await;
    stage.close().await;
    assert_eq!(stage.kinds(&uuid), ["call_started", "dtmf_digit", "call_ended"]);
    let silent = |payload: &[u8]| payload.iter().all(|byte| *byte == 0);
    assert!(ear.frames().iter().all(|frame| silent(&frame.payload)), "silence to the caller");
}

#[tokio::test]
async fn without_a_receiver_calls_are_bridged_all_the_same() {
    let stage = Stage::set(&[("WEBHOOK_URL", "none")]).await;
    let mut call = stage.call().await;
    call.asterisk.silence(15).await;
    call.session.audio_of(15 * 320).await;
    call.session.audio(&[6; 3200]).await;
    assert_eq!(call.ear.at_least(10).await[9].payload, [6; 320]);
    call.asterisk.hang_up().await;
    assert_eq!(stage.end_line(&call.uuid).await["reason"], "hangup");
}

#[tokio::test]
async fn a_queue_that_is_full_holds_up_no_call() {
    let (receiver, gate) = Receiver::held().await;
    let vars = [("QUEUE_LIMIT", "3"), ("WEBHOOK_TIMEOUT", "15000")];
    let stage = Stage::of(receiver, Sts::start(Manner::Usual).await, &vars).await;
    let other = json!({ "uuid": new_uuid(), "type": "call_started", "payload": {} }).to_string();
    while stage.service.post("/events", other.clone()).await.status == 202 {}
    let uuid = new_uuid();
    let answer = stage.announce(&uuid, json!({ "from": "2000" })).await.json();
    assert_eq!(answer["sts_url"], format!("{}/?from=2000", stage.sts.url));
    let mut call = stage.call_of(&uuid).await;
    assert_eq!(call.session.target, "/?from=2000", "the URL that was answered");
    call.asterisk.silence(15).await;
    call.session.audio_of(15 * 320).await;
    call.session.audio(&[6; 3200]).await;
    call.ear.at_least(10).await;
    call.asterisk.hang_up().await;
    assert_eq!(stage.end_line(&call.uuid).await["reason"], "hangup");
    gate.add_permits(100);
}

#[tokio::test]
async fn a_taken_audiosocket_port_is_named_and_ends_with_69() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let vars = [
        ("WEBHOOK_URL", "none"),
        ("HTTP_HOST", "127.0.0.1"),
        ("HTTP_PORT", "0"),
        ("ADMIN_PORT", "0"),
        ("JOURNAL_PATH", "none"),
        ("AUDIOSOCKET_HOST", "127.0.0.1"),
        ("PORT", &port),
    ];
    let (code, _, errors) = run(&["serve"], &vars).await;
    assert_eq!(code, 69, "{errors}");
    assert!(errors.contains(&port), "{errors}");
}

#[tokio::test]
async fn the_user_part_of_an_sts_url_stays_out_of_the_log() {
    let receiver = Receiver::content().await;
    let sts = Sts::start(Manner::Usual).await;
    let url = sts.url.replace("ws://", "ws://alice:pa55word@");
    let vars = [("WEBHOOK_URL", receiver.url.as_str()), ("STS_URL", url.as_str())];
    let mut stage = Stage { service: Service::start(&vars).await, sts, receiver };
    let call = stage.call().await;
    call.asterisk.hang_up().await;
    stage.event(&call.uuid, "call_ended").await;
    stage.close().await;
    let log = stage.service.whole_log().await;
    assert!(log.contains("Connecting to STS WebSocket: "), "{log}");
    assert!(!log.contains("alice") && !log.contains("pa55word"), "{log}");
}

#[tokio::test]
async fn call_ended_has_an_empty_payload_as_avr_documents_it() {
    let stage = Stage::set(&[]).await;
    let call = stage.call().await;
    call.asterisk.hang_up().await;
    assert_eq!(stage.event(&call.uuid, "call_ended").await.body["payload"], json!({}));
}

#[tokio::test]
async fn details_of_the_end_are_in_the_event_where_asked_for_and_in_the_log_always() {
    for vars in [&[][..], &[DETAILS][..]] {
        let stage = Stage::set(vars).await;
        let mut call = stage.call().await;
        call.asterisk.silence(50).await;
        call.asterisk.hang_up().await;
        let line = stage.end_line(&call.uuid).await;
        assert_eq!(
            (level(&line), &line["reason"]),
            ("info".to_owned(), &json!("hangup")),
            "{line}"
        );
        let duration = line["duration_ms"].as_u64().expect("a whole number");
        let length = u64::try_from((BEAT * 49).as_millis()).expect("small");
        assert!((length - 50..length + 5000).contains(&duration), "{duration} ms for {length} ms");
        let payload = stage.event(&call.uuid, "call_ended").await.body["payload"].clone();
        if !vars.is_empty() {
            assert_eq!(payload, json!({ "reason": "hangup", "duration_ms": duration }));
        }
    }
}

#[tokio::test]
async fn an_error_of_the_sts_server_is_logged_and_an_event_only_where_enabled() {
    for (vars, expected) in [
        (&[][..], &["call_started", "transcription", "call_ended"][..]),
        (&[ALL][..], &["call_started", "error", "transcription", "call_ended"][..]),
    ] {
        let mut stage = Stage::set(vars).await;
        let call = stage.call().await;
        call.session.say(json!({ "type": "error", "message": "quota exceeded" })).await;
        call.session.transcript("agent", "it goes on").await;
        stage.event(&call.uuid, "transcription").await;
        let fault =
            |line: &Value| line["uuid"] == call.uuid && line.to_string().contains("quota exceeded");
        let line = stage.service.log_line(fault).await;
        assert!(["warn", "error"].contains(&&*level(&line)), "{line}");
        call.asterisk.hang_up().await;
        stage.event(&call.uuid, "call_ended").await;
        stage.close().await;
        assert_eq!(stage.kinds(&call.uuid), expected);
        let errors = stage.events(&call.uuid).into_iter().filter(|seen| seen.kind() == "error");
        errors.for_each(|error| assert!(error.raw.contains("quota exceeded"), "{error:?}"));
    }
}

#[tokio::test]
async fn calls_side_by_side_are_not_mixed() {
    let stage = Stage::set(&[]).await;
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(stage.call().await);
    }
    for (n, call) in calls.iter_mut().enumerate() {
        let mark = u8::try_from(n).expect("small") + 1;
        for _ in 0..10 {
            call.asterisk.frame(AUDIO, &[mark; 320]).await;
        }
        call.session.audio(&[mark; 3200]).await;
        call.session.transcript("user", &n.to_string()).await;
    }
    for (n, call) in calls.iter().enumerate() {
        let mark = u8::try_from(n).expect("small") + 1;
        assert_eq!(call.session.audio_of(3200).await, [mark; 3200]);
        let frames = call.ear.at_least(10).await;
        assert!(frames.iter().all(|frame| frame.payload == [mark; 320]), "call {n}");
        let event = stage.event(&call.uuid, "transcription").await;
        assert_eq!(event.body["payload"]["text"], n.to_string());
    }
}

#[tokio::test]
async fn numbers_and_words_of_a_call_stay_out_of_the_log() {
    let mut stage = Stage::set(&[]).await;
    let uuid = new_uuid();
    stage.announce(&uuid, json!({ "from": "+39065550199" })).await;
    let call = stage.call_of(&uuid).await;
    call.session.transcript("user", "my card is 4111").await;
    stage.event(&uuid, "transcription").await;
    call.asterisk.hang_up().await;
    stage.event(&uuid, "call_ended").await;
    stage.close().await;
    let log = stage.service.whole_log().await;
    for secret in ["39065550199", "my card is 4111"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} in the log");
    }
}
