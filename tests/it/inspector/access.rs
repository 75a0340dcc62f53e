//! Who may use the admin port, and what a browser may do with what it gets there.

use super::{Admin, HOST};

#[tokio::test]
async fn the_page_is_served_with_a_policy_that_lets_nothing_else_in() {
    let admin = Admin::with(&[("WEBHOOK_URL", "none")]).await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/style.css", "text/css"),
        ("/app.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/api/state", "application/json"),
        ("/nowhere", "application/json"),
    ] {
        let answer = admin.ask("GET", path, &[HOST]).await;
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}: {answer:?}");
        let policy = answer.header("content-security-policy").unwrap();
        for part in
            ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert!(["no-store", "no-cache"].contains(&answer.header("cache-control").unwrap()));
        assert_eq!(answer.header("access-control-allow-origin"), None);
        // Nothing of the page comes from elsewhere, or acts within the markup.
        for foreign in ["https://", "<style", " style=", " onclick="] {
            assert!(path != "/" || !answer.body.contains(foreign), "{foreign}");
        }
    }
    assert_eq!(admin.ask("GET", "/nowhere", &[HOST]).await.status, 404);
    let answer = admin.ask("POST", "/api/calls", &[HOST]).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
}

#[tokio::test]
async fn the_token_guards_the_api_and_not_the_page_that_asks_for_it() {
    let admin = Admin::with(&[("WEBHOOK_URL", "none"), ("ADMIN_TOKEN", "open-sesame")]).await;
    let paths = ["/api/calls", "/api/state", "/api/stream", "/api/dead", "/api/nowhere"];
    for path in paths {
        for token in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic open-sesame")] {
            let headers: Vec<_> =
                [HOST].into_iter().chain(token.map(|it| ("Authorization", it))).collect();
            let answer = admin.ask("GET", path, &headers).await;
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, Some("Bearer")),
                "{path}"
            );
        }
    }
    let page = admin.ask("GET", "/", &[HOST]).await;
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("open-sesame"));
    let known = [
        ("Host", "ops.test"),
        ("Origin", "https://ops.test"),
        ("Authorization", "Bearer open-sesame"),
    ];
    assert_eq!(admin.ask("GET", "/api/calls", &known).await.status, 200, "behind a proxy, too");
    assert_eq!(admin.ask("POST", "/api/dead/replay", &known).await.status, 200);
}

#[tokio::test]
async fn without_a_token_no_page_of_another_origin_and_no_other_host_gets_in() {
    let admin = Admin::with(&[("WEBHOOK_URL", "none")]).await;
    let own = format!("http://{}", HOST.1);
    for (headers, status) in [
        (vec![HOST], 200),
        (vec![HOST, ("Origin", own.as_str())], 200),
        (vec![HOST, ("Sec-Fetch-Site", "same-origin")], 200),
        (vec![("Host", "localhost:6002")], 200),
        (vec![("Host", "[::1]:6002")], 200),
        (vec![HOST, ("Origin", "https://evil.test")], 403),
        (vec![HOST, ("Origin", "http://127.0.0.1:8080")], 403),
        (vec![HOST, ("Origin", "null")], 403),
        (vec![HOST, ("Sec-Fetch-Site", "cross-site")], 403),
        (vec![HOST, ("Sec-Fetch-Site", "same-site")], 403),
        (vec![("Host", "rebound.test:6002")], 403),
        (vec![("Host", "rebound.test"), ("Sec-Fetch-Site", "same-origin")], 403),
        (vec![], 403),
    ] {
        for (method, path) in [("POST", "/api/dead/replay"), ("GET", "/api/calls")] {
            let answer = admin.ask(method, path, &headers).await;
            assert_eq!(answer.status, status, "{method} {headers:?}: {answer:?}");
        }
    }
    assert_eq!(admin.ask("GET", "/", &[("Host", "rebound.test")]).await.status, 403);
    let linked = [HOST, ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(admin.ask("GET", "/", &linked).await.status, 200, "a link to the page works");
}
