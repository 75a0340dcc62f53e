//! A second opinion on JSON (RFC 8259), written against the grammar and not against the program's
//! parser.
//!
//! Refuses what can be misread: a duplicate key, nesting beyond [`DEEPEST`]. Reads lone surrogates, and numbers
//! beyond a double.

/// How deep arrays and objects may nest.
pub const DEEPEST: usize = 127;

/// A value and its text.
#[derive(Debug)]
pub struct Item<'a> {
    /// The text, without white space around it.
    pub raw: &'a str,
    /// What it says.
    pub value: Json<'a>,
}

/// What a JSON text says.
#[derive(Debug)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// The digits.
    Number(&'a str),
    /// The text without its escapes, and with U+FFFD for a lone surrogate.
    Text(String),
    /// The items.
    Array(Vec<Item<'a>>),
    /// The fields, in their order.
    Object(Vec<(String, Item<'a>)>),
}

/// Why there is no value.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub &'static str);

impl<'a> Item<'a> {
    /// The field of an object; `null` counts as absent.
    pub fn field(&self, name: &str) -> Option<&Item<'a>> {
        let Json::Object(fields) = &self.value else {
            return None;
        };
        let item = fields.iter().find_map(|(key, item)| (key == name).then_some(item))?;
        (!matches!(item.value, Json::Null)).then_some(item)
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether both say the same; numbers may differ in the last digits of a double.
    pub fn says(&self, other: &Item<'_>) -> bool {
        match (&self.value, &other.value) {
            (Json::Null, Json::Null) => true,
            (Json::Bool(a), Json::Bool(b)) => a == b,
            (Json::Number(a), Json::Number(b)) => a == b || nearly_equal(a, b),
            (Json::Text(a), Json::Text(b)) => a == b,
            (Json::Array(a), Json::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says(b))
            }
            (Json::Object(a), Json::Object(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.says(&b.1))
            }
            _ => false,
        }
    }
}

fn nearly_equal(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(|digits| digits.parse::<f64>().expect("the grammar was checked"));
    (a - b).abs() <= a.abs() * 1e-15 || (a - b).abs() <= f64::MIN_POSITIVE
}

/// Reads one JSON value, with nothing but white space around it.
///
/// # Errors
/// [`Refusal`].
pub fn read(bytes: &[u8]) -> Result<Item<'_>, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal("no UTF-8"))?;
    let mut parser = Parser { text, at: 0 };
    let item = parser.item(0)?;
    parser.space();
    if parser.at == text.len() { Ok(item) } else { Err(Refusal("something follows")) }
}

fn text_of(units: &[u16]) -> String {
    String::from_utf16_lossy(units)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn expect(&mut self, byte: u8, missing: &'static str) -> Result<(), Refusal> {
        if self.take(byte) { Ok(()) } else { Err(Refusal(missing)) }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn item(&mut self, depth: usize) -> Result<Item<'a>, Refusal> {
        self.space();
        let start = self.at;
        let value = match self.peek() {
            Some(b'{' | b'[') if depth == DEEPEST => return Err(Refusal("too deep")),
            Some(b'{') => self.object(depth + 1)?,
            Some(b'[') => self.array(depth + 1)?,
            Some(b'"') => Json::Text(text_of(&self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Item { raw: &self.text[start..self.at], value })
    }

    fn word(&mut self) -> Result<Json<'a>, Refusal> {
        let words =
            [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
        for (word, value) in words {
            if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(Refusal("no value"))
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, Refusal> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.item(depth)?);
            self.space();
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            self.expect(b',', "no comma between items")?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, Refusal> {
        let mut fields: Vec<(String, Item<'a>)> = Vec::new();
        let mut keys = std::collections::BTreeSet::new();
        self.at += 1;
        self.space();
        if self.take(b'}') {
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.expect(b':', "no colon after a key")?;
            if !keys.insert(key.clone()) {
                return Err(Refusal("a key stands twice"));
            }
            fields.push((text_of(&key), self.item(depth)?));
            self.space();
            if self.take(b'}') {
                return Ok(Json::Object(fields));
            }
            self.expect(b',', "no comma between fields")?;
        }
    }

    /// In UTF-16, as JavaScript reads it.
    fn string(&mut self) -> Result<Vec<u16>, Refusal> {
        self.expect(b'"', "no text")?;
        let mut units = Vec::new();
        loop {
            let char = self.text[self.at..].chars().next();
            let char = char.ok_or(Refusal("a text without end"))?;
            self.at += char.len_utf8();
            match char {
                '"' => return Ok(units),
                '\\' => units.push(self.escape()?),
                '\0'..='\u{1f}' => return Err(Refusal("a bare control character")),
                _ => units.extend_from_slice(char.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn escape(&mut self) -> Result<u16, Refusal> {
        let byte = self.peek().ok_or(Refusal("an escape without end"))?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte.into(),
            b'b' => 0x8,
            b'f' => 0xc,
            b'n' => 0xa,
            b'r' => 0xd,
            b't' => 0x9,
            b'u' => return self.unit(),
            _ => return Err(Refusal("an unknown escape")),
        })
    }

    fn unit(&mut self) -> Result<u16, Refusal> {
        const FOUR: Refusal = Refusal("an escape needs four digits");
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(FOUR)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(FOUR);
        }
        let unit = u16::from_str_radix(&self.text[self.at..self.at + 4], 16);
        self.at += 4;
        Ok(unit.expect("four hexadecimal digits fit"))
    }

    fn number(&mut self) -> Result<Json<'a>, Refusal> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        let digits = &self.text[start..self.at];
        digits.parse::<f64>().map_err(|_| Refusal("no number"))?;
        Ok(Json::Number(digits))
    }

    fn digits(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Refusal("no digits")) }
    }
}
