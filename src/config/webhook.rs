//! One receiver's settings: `WEBHOOK_URL` and what belongs to it.

use secrecy::SecretString;
use url::Url;

use super::error::SettingError;
use super::reader::{SettingsReader, header_value};
use crate::delivery::WebhookSettings;
use crate::delivery::headers::read_headers;
use crate::receiver::ReceiverName;
use crate::wire::identity::{Identity, certificates, private_key};

/// No phone call waits longer for anything.
pub const TEN_MINUTES: u32 = 600_000;

/// `None` without a URL to send to, which is an error unless it is `none`.
pub fn read_webhook(
    reader: &mut SettingsReader<'_>,
    receiver: ReceiverName,
) -> Option<WebhookSettings> {
    const EXPECTED: &str = "expected the receiver's http:// or https:// URL, such as \
                            http://avr-webhook:9000/events, or none to run without a receiver \
                            (a / ? # @ before the host is written %2F %3F %23 %40)";
    let name = |suffix: &str| receiver.variable(suffix);
    let variable = name("URL");
    let given = reader.text(&variable);
    let url = reader.checked(&variable, |text| match WebhookSettings::read_url(text) {
        None if text == "none" => Ok(None),
        Some(url) => Ok(Some(url)),
        None => Err(EXPECTED.to_owned()),
    });
    if given.is_none() && !reader.is_from_file(&variable) {
        reader.add(SettingError::missing(&variable, EXPECTED));
    }
    let url = url.flatten();
    let scheme = url.as_ref().map(Url::scheme);
    let has_user =
        url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some());
    let secret = read_secret(reader, &name("SECRET"));
    let timeout = reader.millis(&name("TIMEOUT"), 1..=TEN_MINUTES);
    let signing_keys = reader.value(&name("SIGNING_KEY"));
    let headers = reader.checked(&name("HEADERS"), |text| read_headers(text, has_user));
    let identity = read_identity(reader, &name("CLIENT_CERT"), &name("CLIENT_KEY"), scheme);
    let proxy = reader.value(&name("PROXY"));
    let url_is_secret = reader.is_from_file(&variable);
    let headers = headers.unwrap_or_default();
    let plain = WebhookSettings::to(url?, timeout);
    Some(WebhookSettings {
        name: receiver,
        url_is_secret,
        secret,
        signing_keys,
        headers,
        identity,
        proxy,
        ..plain
    })
}

fn read_secret(reader: &mut SettingsReader<'_>, name: &str) -> Option<SecretString> {
    let value = reader.checked(name, header_value)?;
    let text = value.to_str().expect("it was checked to be visible ASCII");
    Some(text.into())
}

/// A certificate and its key, told apart from what is wrong with either.
fn read_identity(
    reader: &mut SettingsReader<'_>,
    certificate: &str,
    key: &str,
    scheme: Option<&str>,
) -> Option<Identity> {
    let missing = match (reader.text(certificate), reader.text(key)) {
        (None, None) => return None,
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some((key, certificate, "the key of that certificate")),
        (None, Some(_)) => Some((certificate, key, "the certificate of that key")),
    };
    if let Some((missing, given, what)) = missing {
        let text = format!("{given} is set; expected the path of a PEM file with {what}");
        reader.add(SettingError::missing(missing, &text));
    }
    if scheme == Some("http") {
        reader.refuse(
            certificate,
            "the receiver's URL is http://, so nobody would ask for it; expected an https:// URL, or no certificate",
        );
    }
    let chain = reader.content(certificate, certificates);
    let signing = reader.content(key, private_key);
    match Identity::new(chain?, signing?) {
        Ok(identity) => Some(identity),
        Err(fault) => {
            reader.refuse(key, fault);
            None
        }
    }
}
