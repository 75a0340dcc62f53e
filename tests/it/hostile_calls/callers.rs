//! What is no Asterisk, or a sick one.

use std::time::Duration;

use tokio::time::timeout;

use super::{ended_once, grown, is_well};
use crate::support::asterisk::{AUDIO, Asterisk, BEAT, DTMF, HANGUP, UUID, frame};
use crate::support::event::new_uuid;
use crate::support::receiver::Receiver;
use crate::support::stage::Stage;
use crate::support::sts::{Manner, Sts};

/// Enough for a call that is alive, and soon over for one that is not.
const IDLE: (&str, &str) = ("CALL_IDLE_TIMEOUT", "1000");

#[tokio::test]
async fn a_caller_that_never_tells_its_uuid_is_cut_off_and_was_no_call() {
    let stage = Stage::set(&[IDLE]).await;
    let mute = stage.connect().await;
    let mut half = Vec::new();
    for bytes in [&[UUID][..], &[UUID, 0], &[UUID, 0, 16], &[UUID, 0, 16, 1, 2, 3, 4, 5]] {
        let mut asterisk = stage.connect().await;
        asterisk.send(bytes).await;
        half.push(asterisk);
    }
    is_well(&stage).await;
    mute.ear().closed().await;
    for asterisk in half {
        asterisk.ear().closed().await;
    }
    assert_eq!(stage.receiver.so_far().len(), 3, "the events of the other call");
    assert_eq!(stage.sts.connections().len(), 1);
}

#[tokio::test]
async fn a_caller_that_stops_in_the_middle_of_a_frame_ends_its_call_only() {
    let mut stage = Stage::set(&[IDLE]).await;
    let mut call = stage.call().await;
    call.asterisk.silence(5).await;
    call.asterisk.send(&frame(AUDIO, &[0; 320])[..100]).await;
    is_well(&stage).await;
    call.ear.closed().await;
    call.session.closed().await;
    ended_once(&mut stage, &call.uuid).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_in_the_middle_of_a_frame_ends_its_call_only() {
    let mut stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    call.asterisk.silence(5).await;
    call.asterisk.send(&frame(AUDIO, &[0; 320])[..2]).await;
    call.asterisk.hang_up().await;
    is_well(&stage).await;
    ended_once(&mut stage, &call.uuid).await;
}

#[tokio::test]
async fn frames_that_come_byte_by_byte_or_all_in_one_are_frames_all_the_same() {
    let mut stage = Stage::set(&[]).await;
    let uuid = new_uuid();
    let mut asterisk = stage.connect().await;
    let id = uuid::Uuid::parse_str(&uuid).expect("a uuid");
    for byte in frame(UUID, id.as_bytes()) {
        asterisk.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let session = stage.sts.session_of(&uuid).await;
    let mut glued: Vec<u8> = (0..25_u8).flat_map(|n| frame(AUDIO, &[n, 0].repeat(160))).collect();
    glued.extend(frame(DTMF, b"1"));
    glued.extend(frame(DTMF, b"2"));
    let (one, other) = glued.split_at(4001);
    asterisk.send(one).await;
    for byte in &other[..700] {
        asterisk.send(&[*byte]).await;
    }
    asterisk.send(&other[700..]).await;
    session.message("dtmf_digit", 2).await;
    let expected: Vec<u8> = (0..25_u8).flat_map(|n| [n, 0].repeat(160)).collect();
    assert!(session.audio_of(expected.len()).await == expected, "not a byte lost");
    asterisk.hang_up().await;
    ended_once(&mut stage, &uuid).await;
}

#[tokio::test]
async fn a_connection_that_does_not_begin_with_a_uuid_is_closed_and_was_no_call() {
    let stage = Stage::set(&[]).await;
    let text = new_uuid();
    let beginnings: [(&str, Vec<u8>); 14] = [
        ("audio", frame(AUDIO, &[0; 320])),
        ("a digit", frame(DTMF, b"1")),
        ("a hang-up", frame(HANGUP, &[])),
        ("an error", frame(0xff, &[])),
        ("a uuid of 15 bytes", frame(UUID, &[1; 15])),
        ("a uuid of 17 bytes", frame(UUID, &[1; 17])),
        ("a uuid without bytes", frame(UUID, &[])),
        ("a uuid in text", frame(UUID, text.as_bytes())),
        ("the longest uuid", frame(UUID, &[1; 65_535])),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(100)),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("NULs", vec![0; 100_000]),
        ("high bytes", vec![0xff; 100_000]),
    ];
    for (what, bytes) in beginnings {
        println!("{what}");
        let mut asterisk = stage.connect().await;
        asterisk.send(&bytes).await;
        asterisk.ear().closed().await;
        assert!(asterisk.ear().frames().iter().all(|frame| frame.kind == HANGUP), "{what}");
    }
    is_well(&stage).await;
    assert_eq!(stage.receiver.so_far().len(), 3, "the events of the other call");
    assert_eq!(stage.sts.connections().len(), 1);
}

async fn frames_of_65535_bytes(kind: u8) {
    let mut stage = Stage::set(&[]).await;
    is_well(&stage).await;
    let before = stage.service.memory_peak();
    let mut call = stage.call().await;
    let longest = frame(kind, &[0x11; 65_535]);
    let flood = async {
        for _ in 0..100 {
            if !call.asterisk.send(&longest).await {
                break;
            }
        }
    };
    // Whoever does not take them all at once may let them wait.
    timeout(Duration::from_secs(2), flood).await.ok();
    is_well(&stage).await;
    call.asterisk.hang_up().await;
    stage.event(&call.uuid, "call_ended").await;
    let grown = grown(&stage, before);
    assert!(grown < 32, "{grown} MiB for {kind:#x}");
    ended_once(&mut stage, &call.uuid).await;
}

#[tokio::test]
async fn frames_of_65535_bytes_end_their_own_call_at_most() {
    frames_of_65535_bytes(AUDIO).await;
}

#[tokio::test]
async fn frames_of_65535_bytes_at_192_khz_end_their_own_call_at_most() {
    frames_of_65535_bytes(0x18).await;
}

#[tokio::test]
async fn a_flood_of_frames_is_survived_in_bounded_memory() {
    let mut stage = Stage::set(&[]).await;
    is_well(&stage).await;
    let before = stage.service.memory_peak();
    let mut call = stage.call().await;
    let many = frame(AUDIO, &[0; 320]).repeat(1000);
    let flood = async { while call.asterisk.send(&many).await {} };
    timeout(Duration::from_secs(2), flood).await.ok();
    is_well(&stage).await;
    call.asterisk.reset().await;
    stage.event(&call.uuid, "call_ended").await;
    let grown = grown(&stage, before);
    assert!(grown < 32, "{grown} MiB");
    ended_once(&mut stage, &call.uuid).await;
}

#[tokio::test]
async fn a_caller_that_never_reads_holds_up_nobody() {
    let mut stage = Stage::set(&[]).await;
    is_well(&stage).await;
    let before = stage.service.memory_peak();
    let uuid = new_uuid();
    let mut deaf = Asterisk::connect_deaf(stage.service.audiosocket().await).await;
    deaf.uuid(&uuid).await;
    let session = stage.sts.session_of(&uuid).await;
    for _ in 0..100 {
        session.audio(&[1; 32_000]).await;
    }
    is_well(&stage).await;
    deaf.silence(25).await;
    session.audio_of(25 * 320).await;
    session.transcript("agent", "can you hear me?").await;
    stage.event(&uuid, "transcription").await;
    deaf.hang_up().await;
    stage.event(&uuid, "call_ended").await;
    let grown = grown(&stage, before);
    assert!(grown < 24, "{grown} MiB");
    ended_once(&mut stage, &uuid).await;
}

#[tokio::test]
async fn a_second_connection_with_the_uuid_of_a_live_call_is_refused() {
    let mut stage = Stage::set(&[]).await;
    let mut call = stage.call().await;
    for _ in 0..3 {
        let mut second = stage.connect().await;
        second.uuid(&call.uuid).await;
        second.ear().closed().await;
        let frames = second.ear().frames();
        assert!(frames.iter().all(|frame| frame.kind == HANGUP), "{frames:?}");
    }
    call.asterisk.digit('1').await;
    call.session.message("dtmf_digit", 1).await;
    call.session.audio(&[3; 320]).await;
    call.ear.at_least(1).await;
    assert_eq!(stage.sts.connections().len(), 1);
    call.asterisk.hang_up().await;
    ended_once(&mut stage, &call.uuid).await;
    assert_eq!(stage.kinds(&call.uuid), ["call_started", "dtmf_digit", "call_ended"]);
}

#[tokio::test]
async fn connections_that_say_nothing_take_no_place_from_a_call() {
    let stage = Stage::set(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(stage.connect().await);
    }
    is_well(&stage).await;
}

#[tokio::test]
async fn a_hundred_calls_that_come_and_go_at_once_have_a_start_and_an_end_each() {
    let mut stage = Stage::set(&[]).await;
    let mut callers = Vec::new();
    for _ in 0..100 {
        let uuid = new_uuid();
        callers.push((stage.dial(&uuid).await, uuid));
    }
    let mut uuids = Vec::new();
    for (n, (asterisk, uuid)) in callers.into_iter().enumerate() {
        if n % 2 == 0 {
            asterisk.hang_up().await
        } else {
            asterisk.reset().await
        }
        uuids.push(uuid);
    }
    stage.receiver.seen(200).await;
    stage.close().await;
    for uuid in uuids {
        assert_eq!(stage.kinds(&uuid), ["call_started", "call_ended"]);
    }
}

#[tokio::test]
async fn a_receiver_that_is_slow_holds_up_no_sound() {
    let (receiver, gate) = Receiver::held().await;
    let vars = [("WEBHOOK_TIMEOUT", "15000")];
    let sts = Sts::start(Manner::Usual).await;
    let mut stage = Stage::of(receiver, sts, &vars).await;
    let mut call = stage.call().await;
    call.session.transcript("agent", "hello").await;
    call.asterisk.digit('1').await;
    call.asterisk.silence(20).await;
    call.session.audio_of(20 * 320).await;
    call.session.message("dtmf_digit", 1).await;
    call.session.audio(&[1; 50 * 320]).await;
    let frames = call.ear.at_least(50).await;
    let span = frames[49].at - frames[0].at;
    assert!(span < BEAT * 49 + Duration::from_millis(400), "{span:?}");
    call.asterisk.hang_up().await;
    call.session.closed().await;
    assert_eq!(stage.kinds(&call.uuid), ["call_started"], "the rest waits");
    gate.add_permits(10);
    ended_once(&mut stage, &call.uuid).await;
    let mut kinds = stage.kinds(&call.uuid);
    kinds.sort();
    assert_eq!(kinds, ["call_ended", "call_started", "dtmf_digit", "transcription"]);
}
