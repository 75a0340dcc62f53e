//! Plain JSON: what the program's own scanner says yes to, it has read rightly.

use callhook::event::plain;

use super::json::{self, Item, Json};

/// Checks one text, as a value, as an object and as an array.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let read = json::read(input);
    let (mut fields, mut items) = (Vec::new(), Vec::new());
    let is_value = plain::is_value(text);
    let is_object = plain::fields(text, |name, value| fields.push((name, value)));
    let is_array = plain::items(text, |item| items.push(item));
    let item = match read {
        Ok(item) => item,
        Err(refusal) => {
            assert!(!is_value && !is_object && !is_array, "plain in spite of {refusal:?}");
            return;
        }
    };
    assert_eq!(is_value && matches!(item.value, Json::Object(_)), is_object);
    assert_eq!(is_value && matches!(item.value, Json::Array(_)), is_array);
    match &item.value {
        Json::Object(read) if is_object => {
            assert!(read.iter().map(|(name, item)| (name.as_str(), item.raw)).eq(fields));
        }
        Json::Array(read) if is_array => assert!(read.iter().map(|item| item.raw).eq(items)),
        _ => {}
    }
    let (keys, depth) = extent(&item);
    let is_odd = text.contains('\\') || keys > 32 || depth > 16;
    assert!(is_value || is_odd, "plain JSON is not taken for it: {text}");
}

/// How many keys there are, and how deep it nests.
fn extent(item: &Item<'_>) -> (usize, usize) {
    let of_all = |items: &mut dyn Iterator<Item = &Item<'_>>| {
        items.map(extent).fold((0, 0), |all, one| (all.0 + one.0, all.1.max(one.1)))
    };
    match &item.value {
        Json::Array(items) => {
            let (keys, depth) = of_all(&mut items.iter());
            (keys, depth + 1)
        }
        Json::Object(fields) => {
            let (keys, depth) = of_all(&mut fields.iter().map(|(_, item)| item));
            (keys + fields.len(), depth + 1)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => (0, 0),
    }
}
