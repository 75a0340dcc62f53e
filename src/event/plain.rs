//! Plain JSON: read in one pass and without an allocation, where nothing about it is odd.
//!
//! Only ever says yes. What it says yes to is one value of [RFC 8259](https://www.rfc-editor.org/rfc/rfc8259) with
//! nothing but white space around it, in which no object has a key twice. What it says no to may be good JSON all the
//! same: whoever asks goes to serde_json then, whose errors have the words and the place.
//!
//! Says yes to strings with any escapes, to keys without, and to numbers of any length. Says no to what nests deeper
//! than [`DEEPEST`], so that its stack is bounded, and to more than [`MOST_KEYS`] keys in the objects that are open at
//! a time, since each is compared with all before it.

/// Events of AVR's nest twice.
const DEEPEST: usize = 16;

/// An event of AVR's has four, and what the dialplan sends in its payload.
const MOST_KEYS: usize = 32;

/// Whether the text is a plain value.
pub fn is_value(text: &str) -> bool {
    Scanner::whole(text, Scanner::value)
}

/// Whether the text is a plain object. Tells each field's name and value, of which nothing counts if the answer is no.
pub fn fields<'a>(text: &'a str, found: impl FnMut(&'a str, &'a str)) -> bool {
    Scanner::whole(text, |scanner| scanner.object(found))
}

/// Whether the text is a plain array. Tells each item, of which nothing counts if the answer is no.
pub fn items<'a>(text: &'a str, found: impl FnMut(&'a str)) -> bool {
    Scanner::whole(text, |scanner| scanner.array(found))
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Of the objects that are open, the outer ones' first.
    keys: [&'a str; MOST_KEYS],
    known_keys: usize,
}

/// Each of these goes on behind what it read, or gives up for good.
impl<'a> Scanner<'a> {
    fn whole<T>(text: &'a str, read: impl FnOnce(&mut Self) -> Option<T>) -> bool {
        let mut scanner = Self { text, at: 0, depth: 0, keys: [""; MOST_KEYS], known_keys: 0 };
        scanner.space();
        let was_read = read(&mut scanner).is_some();
        scanner.space();
        was_read && scanner.at == text.len()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Option<&'a str> {
        let begin = self.at;
        match self.peek()? {
            b'"' => self.string()?,
            b'{' => self.object(|_, _| ())?,
            b'[' => self.array(|_| ())?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        self.text.get(begin..self.at)
    }

    fn object(&mut self, mut found: impl FnMut(&'a str, &'a str)) -> Option<()> {
        self.open(b'{')?;
        let outer_keys = self.known_keys;
        if self.peek()? == b'}' {
            return self.close();
        }
        loop {
            let name = self.key(outer_keys)?;
            self.space();
            self.take(b':')?;
            self.space();
            found(name, self.value()?);
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return None,
            }
            self.space();
        }
        self.known_keys = outer_keys;
        self.close()
    }

    fn array(&mut self, mut found: impl FnMut(&'a str)) -> Option<()> {
        self.open(b'[')?;
        if self.peek()? == b']' {
            return self.close();
        }
        loop {
            found(self.value()?);
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => return self.close(),
                _ => return None,
            }
            self.space();
        }
    }

    fn open(&mut self, bracket: u8) -> Option<()> {
        self.take(bracket)?;
        self.depth += 1;
        self.space();
        (self.depth <= DEEPEST).then_some(())
    }

    fn close(&mut self) -> Option<()> {
        self.at += 1;
        self.depth -= 1;
        Some(())
    }

    /// A key that its object did not have before.
    fn key(&mut self, outer_keys: usize) -> Option<&'a str> {
        self.take(b'"')?;
        let begin = self.at;
        self.unescaped();
        let key = self.text.get(begin..self.at)?;
        self.take(b'"')?;
        let is_new = !self.keys[outer_keys..self.known_keys].contains(&key);
        *self.keys.get_mut(self.known_keys).filter(|_| is_new)? = key;
        self.known_keys += 1;
        Some(key)
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            self.unescaped();
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    /// As far as the next quote, backslash or control character.
    fn unescaped(&mut self) {
        while let Some(byte) = self.peek()
            && !matches!(byte, b'"' | b'\\' | 0..0x20)
        {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            // A surrogate may stand alone.
            b'u' => (0..4)
                .all(|_| self.next().is_some_and(|byte| byte.is_ascii_hexdigit()))
                .then_some(()),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        self.at += word.len();
        rest.starts_with(word).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_deeper_or_has_more_keys_than_the_limits_is_not_plain() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_value(&nested(DEEPEST)) && !is_value(&nested(DEEPEST + 1)));
        let object = |count| {
            let fields: Vec<String> = (0..count).map(|key| format!(r#""{key}":0"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert!(is_value(&object(MOST_KEYS)) && !is_value(&object(MOST_KEYS + 1)));
        let beside = format!("[{0},{0}]", object(MOST_KEYS));
        assert!(is_value(&beside), "keys of an object that is closed do not count");
        let within = format!(r#"{{"a":{}}}"#, object(MOST_KEYS));
        assert!(!is_value(&within), "those of all that are open do");
    }
}
