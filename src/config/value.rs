//! Values: whatever type one has in TOML, as the text that it would be in the environment.

use figment::value::Value;

use super::names::is_table;

/// An empty value, `undefined` and `null` count as not set, since avr-app passes those.
pub fn is_set(text: &str) -> bool {
    !matches!(text.trim(), "" | "undefined" | "null")
}

/// The value of a setting from a TOML document; `None` if it counts as not set. A table becomes JSON where it may be
/// one.
pub fn of_toml(name: &str, value: Value) -> Option<Value> {
    let value = match value {
        table @ Value::Dict(..) if is_table(name) => {
            Value::from(serde_json::to_string(&table).unwrap_or_default())
        }
        other => other,
    };
    is_set(&as_text(&value)).then_some(value)
}

/// Lists are joined by commas.
pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.trim().to_owned(),
        Value::Char(_, char) => char.to_string(),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|whole| whole.to_string())
            .or_else(|| number.to_u128().map(|whole| whole.to_string()))
            .or_else(|| number.to_f64().map(|fraction| fraction.to_string()))
            .unwrap_or_default(),
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(as_text).collect();
            items.join(",")
        }
        // A table is refused by its key, so its text does not matter.
        Value::Dict(..) => "{…}".to_owned(),
        Value::Empty(..) => String::new(),
    }
}
