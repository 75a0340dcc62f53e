//! `config/openapi.yaml`, from which people generate receivers and clients, says what the binary does:
//! `openapi/answers.rs` sees each documented answer, `openapi/limits.rs` each limit just inside and just
//! outside, and `openapi/webhooks.rs` what a receiver is really sent.

mod answers;
mod document;
mod limits;
mod webhooks;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use self::document::Document;
use crate::support::service::{Answer, Service, Wire};

/// A service, both ports of which are asked.
struct Running {
    service: Service,
}

impl Running {
    async fn start(vars: &[(&str, &str)]) -> Running {
        Running { service: Service::start(vars).await }
    }

    /// One request, to the port that the path belongs to.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        if ["/", "/metrics"].contains(&path) || path.starts_with("/api/") {
            return self.service.ask_admin(method, path, headers).await;
        }
        self.service.ask(method, path, headers, body).await
    }

    /// A connection to the admin port.
    async fn admin(&self) -> Wire {
        Wire::open(self.service.admin().await).await
    }
}

/// The files that routes are written in.
fn sources() -> Vec<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join("http.rs"), source.join("inspector.rs")];
    for directory in ["http", "inspector"] {
        let entries = fs::read_dir(source.join(directory)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
}

#[test]
fn every_route_of_the_source_is_documented_and_no_other() {
    let document = Document::read();
    // The page, and the files beside it, are routed from a table, and are no API.
    let mut routes = BTreeSet::from(["/".to_owned()]);
    for file in sources().into_iter().filter(|file| !file.ends_with("inspector/page.rs")) {
        let source = fs::read_to_string(&file).unwrap();
        let program = source.split("#[cfg(test)]").next().unwrap_or_default();
        for rest in program.split(".route(").skip(1) {
            let path = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            let path = path.unwrap_or_else(|| panic!("a path in quotes: {}", file.display()));
            routes.insert(path.to_owned());
        }
    }
    let documented: BTreeSet<String> = document.paths().map(ToOwned::to_owned).collect();
    assert_eq!(routes, documented);
}

#[tokio::test]
async fn each_path_takes_the_documented_methods_and_no_other() {
    let document = Document::read();
    let running = Running::start(&[("WEBHOOK_URL", "none")]).await;
    for path in document.paths() {
        let answer =
            running.ask("PATCH", &path.replace("{id}", "x").replace("{uuid}", "x"), &[], "").await;
        assert_eq!(answer.status, 405, "PATCH {path}");
        let allowed = answer.header("allow").unwrap().split(',');
        let allowed: BTreeSet<&str> = allowed.map(str::trim).filter(|m| *m != "HEAD").collect();
        let documented = document.methods(path);
        let documented: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
        assert_eq!(allowed, documented, "{path}");
        match path {
            "/call/{uuid}/next" => {
                assert_eq!(answer.body, "", "it could be taken for a destination")
            }
            "/hangup" | "/transfer" | "/variables" | "/originate" | "/setvar" => {
                document.validate("a 405", "#/components/schemas/AgentMessage", &answer.json());
            }
            _ => document.validate("a 405", "#/components/schemas/Error", &answer.json()),
        }
    }
    for path in ["/call/", "/webhooks", "/api/none", "/metrics/"] {
        let answer = running.ask("GET", path, &[], "").await;
        assert_eq!(answer.status, 404, "{path}");
        document.validate("a 404", "#/components/schemas/Error", &answer.json());
    }
}

#[test]
fn every_example_is_valid_and_no_body_lacks_one() {
    let document = Document::read();
    let checked = document.check_examples();
    assert!(checked > 60, "only {checked} examples were found");
}

#[test]
fn the_version_is_the_programs() {
    assert_eq!(Document::read().at("#/info/version"), env!("CARGO_PKG_VERSION"));
}
