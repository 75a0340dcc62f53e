//! What is set for a receiver beside its URL: further headers, a certificate, a proxy.

use super::{assert_hidden, config, line_of, settings_file};
use crate::support::service::run;
use crate::support::tls::client_file;
use tempfile::TempDir;

/// What `serve` says of these variables, which are wrong in so many ways.
async fn faults(count: usize, vars: &[(&str, &str)]) -> String {
    let (code, _, stderr) = run(&["serve"], vars).await;
    assert_eq!(code, 64, "{vars:?}: {stderr}");
    let first = match count {
        1 => "1 setting is wrong".to_owned(),
        many => format!("{many} settings are wrong"),
    };
    assert!(stderr.contains(&first), "{vars:?}: {stderr}");
    assert_hidden(&stderr, &["hush"]);
    stderr
}

const HTTPS: (&str, &str) = ("WEBHOOK_URL", "https://receiver.test/events");

#[tokio::test]
async fn each_header_that_is_none_or_callhooks_own_is_named_without_its_value() {
    for (headers, told) in [
        ("hush", "expected a JSON object"),
        (r#"["hush"]"#, "expected a JSON object"),
        (r#"{"X-A":"hush""#, "no JSON at column"),
        (r#"{"X-A":7}"#, "X-A: expected a text in quotation marks"),
        (r#"{"X A":"hush"}"#, r#""X"… is no name of a header"#),
        (r#"{"X-A":"hush\r\nHost: hush"}"#, "X-A: expected visible ASCII"),
        (r#"{"X-A":"hush","x-a":"hush"}"#, "x-a stands there twice"),
    ] {
        let said = faults(1, &[HTTPS, ("WEBHOOK_HEADERS", headers)]).await;
        assert!(line_of(&said, "WEBHOOK_HEADERS").contains(told), "{headers}: {said}");
    }
    for own in [
        "Host",
        "content-length",
        "Content-Type",
        "Transfer-Encoding",
        "CONNECTION",
        "Keep-Alive",
        "Upgrade",
        "Accept",
        "Accept-Encoding",
        "User-Agent",
        "X-AVR-WEBHOOK-SECRET",
        "X-AVR-WEBHOOK-ATTEMPT",
        "X-AVR-WEBHOOK-SEQUENCE",
        "X-AVR-AGENT-ID",
        "webhook-id",
        "Webhook-Signature",
        "webhook-timestamp",
        "traceparent",
        "X-Callhook-Via",
        "Proxy-Authorization",
    ] {
        let headers = format!(r#"{{"{own}":"hush"}}"#);
        let said = faults(1, &[HTTPS, ("WEBHOOK_HEADERS", &headers)]).await;
        assert!(said.contains(&format!("{own} is not accepted: ")), "{own}: {said}");
    }
    let user = ("WEBHOOK_URL", "https://joe:hush@receiver.test/");
    let headers = ("WEBHOOK_HEADERS", r#"{"authorization":"Bearer hush"}"#);
    let said = faults(1, &[user, headers]).await;
    assert!(said.contains("authorization is not accepted: the user part of the URL"), "{said}");
}

#[tokio::test]
async fn a_certificate_or_key_that_will_not_do_is_told_with_variable_path_and_what_to_do() {
    let directory = TempDir::new().expect("a temporary directory");
    let put = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path of plain text").to_owned()
    };
    let file = client_file;
    let (cert, key) = (file("client.pem"), file("client.key"));
    let pem = std::fs::read_to_string(&cert).unwrap();
    let cut = put("cut.pem", &pem[..pem.len() - 40]);
    let garbled = put("garbled.pem", &pem.replacen('M', "*", 3));
    let empty = put("empty.pem", "");
    let binary = directory.path().join("cert.der");
    std::fs::write(&binary, [0x30, 0x82, 0xff, 0xfe, 0]).unwrap();
    let binary = binary.to_str().unwrap().to_owned();
    let missing = directory.path().join("missing.pem").to_str().unwrap().to_owned();
    let folder = directory.path().to_str().unwrap().to_owned();
    let old = put(
        "old.key",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nhush\n-----END RSA PRIVATE KEY-----\n",
    );
    let (cert_is, key_is) = ("WEBHOOK_CLIENT_CERT", "WEBHOOK_CLIENT_KEY");
    let (encrypted, odd, other) = (file("encrypted.key"), file("odd.key"), file("other.key"));
    for (cert, key, at, words) in [
        (&missing, &key, cert_is, &["cannot be read", "PEM"][..]),
        (&cert, &missing, key_is, &["cannot be read", "PEM"]),
        (&folder, &key, cert_is, &["cannot be read"]),
        (&empty, &key, cert_is, &["is not PEM", "BEGIN CERTIFICATE"]),
        (&binary, &key, cert_is, &["is not PEM", "openssl x509 -inform DER"]),
        (&cert, &binary, key_is, &["is not PEM", "openssl pkey -inform DER"]),
        (&cut, &key, cert_is, &["broken or cut off"]),
        (&garbled, &key, cert_is, &["broken or cut off"]),
        (&key, &key, cert_is, &["holds a private key and no certificate", "_CLIENT_KEY"]),
        (&cert, &cert, key_is, &["holds a certificate and no private key", "_CLIENT_CERT"]),
        (&cert, &encrypted, key_is, &["is encrypted", "openssl pkey"]),
        (&cert, &old, key_is, &["is encrypted", "openssl pkey"]),
        (&cert, &odd, key_is, &["cannot sign with", "ECDSA (P-256, P-384)"]),
        (&cert, &other, key_is, &["is not the key of the first certificate"]),
    ] {
        let said = faults(1, &[HTTPS, (cert_is, cert), (key_is, key)]).await;
        let line = line_of(&said, at);
        let path = if at == cert_is { cert } else { key };
        assert!(line.contains(&format!("{at}={path}")), "{line}");
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
    // Both at once, beside others.
    let vars = [("WEBHOOK_URL", "https://h/"), (cert_is, &missing), (key_is, &encrypted)];
    let said = faults(3, &[&vars[..], &[("WEBHOOK_RETRY", "often")]].concat()).await;
    assert!(line_of(&said, cert_is).contains("cannot be read"));
    assert!(line_of(&said, key_is).contains("is encrypted"));
}

#[tokio::test]
async fn a_certificate_needs_its_key_and_an_https_url() {
    let (cert, key) = (client_file("client.pem"), client_file("client.key"));
    let (cert, key) = (("WEBHOOK_CLIENT_CERT", &*cert), ("WEBHOOK_CLIENT_KEY", &*key));
    let said = faults(1, &[HTTPS, cert]).await;
    assert!(said.contains("WEBHOOK_CLIENT_KEY is not set: WEBHOOK_CLIENT_CERT is set"), "{said}");
    let said = faults(1, &[HTTPS, key]).await;
    assert!(said.contains("WEBHOOK_CLIENT_CERT is not set: WEBHOOK_CLIENT_KEY is set"), "{said}");
    let said = faults(1, &[("WEBHOOK_URL", "http://h/"), cert, key]).await;
    assert!(line_of(&said, "WEBHOOK_CLIENT_CERT").contains("expected an https:// URL"), "{said}");
    config(&[HTTPS, cert, key]).await;
}

#[tokio::test]
async fn a_proxy_is_an_http_url_with_nothing_after_its_port_and_its_user_is_not_shown() {
    for proxy in [
        "https://joe:hush@proxy.test:3128",
        "socks5://joe:hush@proxy.test:3128",
        "joe:hush@proxy.test:3128",
        "proxy.test:3128",
        "http://joe:hush@proxy.test:99999",
        "http://joe:hush@proxy.test:3128/path",
        "http://joe:hush@proxy.test:3128/?query",
    ] {
        let said = faults(1, &[HTTPS, ("WEBHOOK_PROXY", proxy)]).await;
        assert!(said.contains("expected a proxy as http://host:port"), "{proxy}: {said}");
        assert_hidden(&said, &["joe"]);
    }
    let listing = config(&[HTTPS, ("WEBHOOK_PROXY", "http://joe:hush@proxy.test:3128")]).await;
    assert!(listing.contains("WEBHOOK_PROXY=http://***@proxy.test:3128/"), "{listing}");
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("proxy");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "http://joe:hush@proxy.test:3128\n").unwrap();
    let listing = config(&[HTTPS, ("WEBHOOK_PROXY_FILE", file)]).await;
    let line = line_of(&listing, "WEBHOOK_PROXY");
    assert!(
        line.starts_with("WEBHOOK_PROXY=http://proxy.test:3128 ") && line.contains(file),
        "{line}"
    );
    assert_hidden(&listing, &["joe", "hush"]);
}

#[tokio::test]
async fn a_table_in_toml_is_refused_where_it_means_nothing() {
    let (_directory, path) =
        settings_file("webhook_proxy = { url = \"hush\" }\nwebhook_headers = { X-A = 7 }\n");
    let vars = [HTTPS, ("CALLHOOK_CONFIG", path.to_str().unwrap())];
    let (code, _, said) = run(&["serve"], &vars).await;
    assert_eq!(code, 64, "{said}");
    assert!(said.contains("webhook_proxy in") && said.contains("found a table"), "{said}");
    assert!(line_of(&said, "WEBHOOK_HEADERS").contains("X-A: expected a text"), "{said}");
    assert_hidden(&said, &["hush"]);
}
