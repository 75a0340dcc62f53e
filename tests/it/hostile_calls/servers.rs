//! STS servers that are slow, loud or broken.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{ended_once, grown, is_well};
use crate::support::asterisk::{AUDIO, Frame, frame as caller_frame};
use crate::support::event::new_uuid;
use crate::support::receiver::Receiver;
use crate::support::service::{level, serve};
use crate::support::sound::bytes_of;
use crate::support::stage::{Call, Stage};
use crate::support::sts::{Manner, Sts, frame};

const TEXT: u8 = 1;
const PING: u8 = 9;

/// Waits until the server's last word was taken in.
async fn goes_on(stage: &Stage, call: &Call) {
    call.session.transcript("agent", "still there").await;
    let said = |text: &Value| text == "still there";
    let found = stage.receiver.until("the last word", |seen| {
        let mut words = seen.iter().filter(|seen| seen.uuid() == call.uuid);
        words.find(|seen| said(&seen.body["payload"]["text"])).map(drop)
    });
    found.await;
}

#[tokio::test]
async fn messages_that_make_no_sense_are_passed_over() {
    let mut stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    let deep = format!("{}1{}", r#"{"type":"#.repeat(5000), "}".repeat(5000));
    let texts = [
        "",
        " ",
        "null",
        "5",
        "[]",
        "{",
        "{}",
        "audio",
        "\u{feff}{}",
        "{\"type\":\"audio\"",
        &deep,
        r#"{"type":1}"#,
        r#"{"type":null}"#,
        r#"{"type":"transcript"}"#,
        r#"{"type":"error"}"#,
        r#"{"type":"transcript","role":"agent"}"#,
        r#"{"type":"transcript","role":7,"text":[]}"#,
        r#"{"type":"audio"}"#,
        r#"{"type":"audio","audio":""}"#,
        r#"{"type":"audio","audio":"!"}"#,
        r#"{"type":"audio","audio":"AAA"}"#,
        r#"{"type":"audio","audio":5}"#,
        r#"{"type":"audio","audio":null}"#,
        r#"{"type":"AUDIO","audio":"AAAA"}"#,
        r#"{"type":"tool_invocation","name":"x"}"#,
        r#"{"type":"init","uuid":"x"}"#,
        r#"{"type":"dtmf_digit","digit":"1"}"#,
        r#"{"type":"error","message":{"code":1}}"#,
    ];
    for text in texts {
        assert!(call.session.text(text).await, "it goes on before {text:.40}");
    }
    for bytes in [&[][..], &[0; 320], b"{\"type\":\"interruption\"}"] {
        call.session.binary(bytes).await;
    }
    call.session.raw(frame(PING, b"are you there?")).await;
    goes_on(&stage, &call).await;
    call.asterisk.digit('1').await;
    call.session.message("dtmf_digit", 1).await;
    call.session.audio(&[1; 960]).await;
    let played = |frames: &[Frame]| frames.iter().any(|one| one.payload == [1; 320]).then_some(());
    call.ear.until("a frame of good audio", played).await;
    call.asterisk.hang_up().await;
    ended_once(&mut stage, &call.uuid).await;
    let known = ["call_started", "transcription", "dtmf_digit", "call_ended"];
    let kinds = stage.kinds(&call.uuid);
    assert!(kinds.iter().all(|kind| known.contains(&&**kind)), "{kinds:?}");
}

#[tokio::test]
async fn a_transcript_that_is_cut_in_mid_emoji_is_an_event() {
    let mut stage = Stage::set(&[]).await;
    let call = stage.call().await;
    call.session.text(r#"{"type":"transcript","role":"user","text":"party \ud83c"}"#).await;
    let event = stage.event(&call.uuid, "transcription").await;
    assert_eq!(event.body["payload"], json!({ "role": "user", "text": "party \u{fffd}" }));
    call.asterisk.hang_up().await;
    ended_once(&mut stage, &call.uuid).await;
}

#[tokio::test]
async fn a_call_without_any_sts_server_is_warned_about() {
    let receiver = Receiver::content().await;
    let service = serve(&receiver.url, &[]).await;
    let mut stage = Stage { receiver, sts: Sts::start(Manner::Usual).await, service };
    let uuid = new_uuid();
    let asterisk = stage.dial(&uuid).await;
    let warned = |line: &Value| line["uuid"] == uuid && line.to_string().contains("STS_URL");
    assert_eq!(level(&stage.service.log_line(warned).await), "warn");
    asterisk.ear().silent_for(1).await;
    asterisk.hang_up().await;
    ended_once(&mut stage, &uuid).await;
}

#[tokio::test]
async fn a_message_in_pieces_is_a_message() {
    let mut stage = Stage::set(&[]).await;
    let call = stage.call().await;
    let text = json!({ "type": "transcript", "role": "user", "text": "in pieces" }).to_string();
    let (one, rest) = text.as_bytes().split_at(10);
    let (two, three) = rest.split_at(10);
    let mut pieces = [frame(TEXT, one), frame(0, two), frame(PING, b"between"), frame(0, three)];
    pieces[0][0] = TEXT;
    pieces[1][0] = 0;
    let stream = pieces.concat();
    for bytes in stream.chunks(7) {
        call.session.raw(bytes.to_vec()).await;
    }
    let event = stage.event(&call.uuid, "transcription").await;
    assert_eq!(event.body["payload"], json!({ "role": "user", "text": "in pieces" }));
    call.asterisk.hang_up().await;
    ended_once(&mut stage, &call.uuid).await;
}

#[tokio::test]
async fn a_stream_that_is_no_websocket_ends_its_call_only() {
    let breaches: [(&str, Vec<u8>); 5] = [
        ("a reserved opcode", frame(3, b"?")),
        ("a reserved bit", vec![0x80 | 0x40 | TEXT, 0]),
        ("no UTF-8", frame(TEXT, b"\xff\xfe")),
        ("HTTP", b"HTTP/1.1 500 Oops\r\n\r\n".repeat(20)),
        (
            "an endless frame",
            [&[0x80 | TEXT, 127][..], &u64::MAX.to_be_bytes(), &[b' '; 99]].concat(),
        ),
    ];
    for (what, bytes) in breaches {
        println!("{what}");
        let mut stage = Stage::set(&[]).await;
        let call = stage.call().await;
        call.session.raw(bytes).await;
        call.ear.hung_up().await;
        is_well(&stage).await;
        ended_once(&mut stage, &call.uuid).await;
    }
}

#[tokio::test]
async fn an_sts_server_that_never_reads_holds_up_nobody() {
    let manners = [Manner::Usual, Manner::Deaf, Manner::Usual];
    let mut stage = Stage::with(Sts::start_each(&manners).await, &[]).await;
    is_well(&stage).await;
    let before = stage.service.memory_peak();
    let uuid = new_uuid();
    let mut asterisk = stage.dial(&uuid).await;
    let session = stage.sts.session(1).await;
    // Ten minutes of audio, as fast as it is taken.
    let many = caller_frame(AUDIO, &[0; 320]).repeat(100);
    let flood = async {
        for _ in 0..300 {
            asterisk.send(&many).await;
        }
    };
    timeout(Duration::from_secs(3), flood).await.ok();
    is_well(&stage).await;
    session.audio(&[2; 3200]).await;
    asterisk.ear().at_least(10).await;
    session.transcript("agent", "I hear nothing").await;
    stage.event(&uuid, "transcription").await;
    let hung_up = Instant::now();
    asterisk.reset().await;
    stage.event(&uuid, "call_ended").await;
    assert!(hung_up.elapsed() < Duration::from_secs(5), "{:?}", hung_up.elapsed());
    let grown = grown(&stage, before);
    assert!(grown < 24, "{grown} MiB");
    ended_once(&mut stage, &uuid).await;
}

#[tokio::test]
async fn a_flood_of_agent_audio_is_kept_for_thirty_seconds_and_no_more() {
    const SECOND: usize = 16_000;
    let mut stage = Stage::set(&[]).await;
    is_well(&stage).await;
    let before = stage.service.memory_peak();
    let call = stage.call().await;
    // Twenty minutes, each second of samples that are its number.
    for second in 1..=1200_i16 {
        call.session.audio(&bytes_of(&[second; SECOND / 2])).await;
    }
    goes_on(&stage, &call).await;
    let frames = call.ear.at_least(75).await;
    let order: Vec<u8> = frames.iter().take(75).map(|frame| frame.payload[0]).collect();
    let expected: Vec<u8> = [[1; 50], [2; 50]].concat().into_iter().take(75).collect();
    assert_eq!(order, expected, "the oldest is kept");
    let grown = grown(&stage, before);
    assert!(grown < 16, "{grown} MiB");
    is_well(&stage).await;
    call.asterisk.hang_up().await;
    ended_once(&mut stage, &call.uuid).await;
    let log = stage.service.log_so_far();
    let warned = |line: &&Value| {
        line["uuid"] == call.uuid
            && line["level"].as_str().is_some_and(|level| level.eq_ignore_ascii_case("warn"))
    };
    let warnings: Vec<&Value> = log.iter().filter(warned).collect();
    assert_eq!(warnings.len(), 1, "one warning: {warnings:#?}");
}

#[tokio::test]
async fn ten_megabytes_in_one_message_end_their_own_call_at_most() {
    let big = "A".repeat(10 * 1024 * 1024);
    let messages = [
        json!({ "type": "audio", "audio": big }),
        json!({ "type": "transcript", "role": "agent", "text": big }),
        json!({ "type": "something_else", "what": big }),
    ];
    for message in messages {
        println!("{}", message["type"]);
        let mut stage = Stage::set(&[]).await;
        is_well(&stage).await;
        let before = stage.service.memory_peak();
        let call = stage.call().await;
        call.session.say(message).await;
        is_well(&stage).await;
        call.asterisk.hang_up().await;
        stage.event(&call.uuid, "call_ended").await;
        let grown = grown(&stage, before);
        assert!(grown < 64, "{grown} MiB");
        ended_once(&mut stage, &call.uuid).await;
    }
}

#[tokio::test]
async fn an_sts_server_that_talks_on_after_the_end_is_not_listened_to_for_long() {
    let mut stage = Stage::with(Sts::start(Manner::Clings).await, &[]).await;
    let call = stage.call().await;
    let hung_up = Instant::now();
    call.asterisk.hang_up().await;
    let chatter = async {
        while call.session.audio(&[1; 3200]).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = chatter => {}
        _ = call.session.gone() => {}
    }
    stage.event(&call.uuid, "call_ended").await;
    assert!(hung_up.elapsed() < Duration::from_secs(4), "{:?}", hung_up.elapsed());
    ended_once(&mut stage, &call.uuid).await;
}

#[tokio::test]
async fn a_call_whose_sts_server_never_answers_holds_up_no_other() {
    let manners = [Manner::Mute, Manner::Usual];
    let mut stage = Stage::with(Sts::start_each(&manners).await, &[]).await;
    let uuid = new_uuid();
    let asterisk = stage.dial(&uuid).await;
    stage.sts.connected(1).await;
    is_well(&stage).await;
    asterisk.hang_up().await;
    ended_once(&mut stage, &uuid).await;
}
