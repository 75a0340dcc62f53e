//! What fuzzing found worth keeping: every input of `fuzz/corpus` keeps its promises, with the checks
//! that the fuzzer runs (`fuzz/src`).

#[allow(dead_code, reason = "the fuzz targets use the whole of it")]
#[path = "../../fuzz/src/lib.rs"]
mod properties;

use std::fs;
use std::path::Path;

/// Runs the check over the target's corpus; a failure says which input it was.
fn check_corpus(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut checked = 0;
    for entry in fs::read_dir(&corpus).expect("the target has a corpus") {
        let path = entry.expect("the directory can be read").path();
        println!("{}", path.display());
        check(&fs::read(&path).expect("the input can be read"));
        checked += 1;
    }
    assert!(checked >= 10, "{} holds {checked} inputs alone", corpus.display());
}

#[test]
fn bodies_of_call_are_accepted_or_refused_for_a_reason_and_routed_without_loss() {
    check_corpus("call_json", properties::call_json::check);
}

#[test]
fn what_asterisk_was_seen_to_send_is_accepted() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    for entry in fs::read_dir(captures).expect("there are captures") {
        let path = entry.expect("the directory can be read").path();
        if path.extension().is_none_or(|extension| extension != "http") {
            continue;
        }
        let request = fs::read(path).expect("the capture can be read");
        let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let body = &request[head.expect("a head ends with an empty line") + 4..];
        assert!(callhook::http::call::parse(body).is_ok());
        properties::call_json::check(body);
    }
}

#[test]
fn bodies_of_events_are_accepted_or_refused_for_a_reason_and_passed_on_without_loss() {
    check_corpus("events_json", properties::events_json::check);
}

#[test]
fn what_is_plain_json_is_read_as_what_it_says() {
    for bodies in ["call_json", "events_json", "sts"] {
        check_corpus(bodies, properties::plain_json::check);
    }
}

#[test]
fn retry_after_is_understood_and_never_longer_than_fifteen_minutes() {
    check_corpus("retry_after", properties::retry_after::check);
}

#[test]
fn frames_are_read_as_the_protocol_says_or_refused() {
    check_corpus("audiosocket", properties::audiosocket::check);
}

#[test]
fn what_servers_say_is_understood_or_passed_over() {
    check_corpus("sts", properties::sts::check);
}

#[test]
fn settings_keep_their_limits_and_tell_no_secret() {
    check_corpus("settings", properties::settings::check);
}
