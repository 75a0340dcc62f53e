//! A second opinion on JSON (RFC 8259), written against the grammar and not against the program's
//! parser.
//!
//! Refuses what can be misread: a key that stands twice in one object, a lone surrogate, nesting
//! beyond [`DEEPEST`].

/// How deep arrays and objects may nest.
pub const DEEPEST: usize = 127;

/// Numbers beyond this, near the largest that a double holds, may be read or refused.
const LARGEST: f64 = 1.7e308;

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
    /// The text without its escapes.
    Text(String),
    /// The items.
    Array(Vec<Item<'a>>),
    /// The fields, in their order.
    Object(Vec<(String, Item<'a>)>),
}

/// Why there is no value.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It must be refused.
    Wrong(&'static str),
    /// It is JSON, but a parser may find a number too large.
    Unsure,
}

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
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Wrong("no UTF-8"))?;
    let mut parser = Parser { text, at: 0, unsure: false };
    let item = parser.item(0)?;
    parser.space();
    match (parser.at == text.len(), parser.unsure) {
        (false, _) => Err(Refusal::Wrong("something follows")),
        (true, true) => Err(Refusal::Unsure),
        (true, false) => Ok(item),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    unsure: bool,
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
        if self.take(byte) { Ok(()) } else { Err(Refusal::Wrong(missing)) }
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
            Some(b'{' | b'[') if depth == DEEPEST => return Err(Refusal::Wrong("too deep")),
            Some(b'{') => self.object(depth + 1)?,
            Some(b'[') => self.array(depth + 1)?,
            Some(b'"') => Json::Text(self.string()?),
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
        Err(Refusal::Wrong("no value"))
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
                return Err(Refusal::Wrong("a key stands twice"));
            }
            fields.push((key, self.item(depth)?));
            self.space();
            if self.take(b'}') {
                return Ok(Json::Object(fields));
            }
            self.expect(b',', "no comma between fields")?;
        }
    }

    fn string(&mut self) -> Result<String, Refusal> {
        self.expect(b'"', "no text")?;
        let mut text = String::new();
        loop {
            let char = self.text[self.at..].chars().next();
            let char = char.ok_or(Refusal::Wrong("a text without end"))?;
            self.at += char.len_utf8();
            match char {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                '\0'..='\u{1f}' => return Err(Refusal::Wrong("a bare control character")),
                _ => text.push(char),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Refusal> {
        let byte = self.peek().ok_or(Refusal::Wrong("an escape without end"))?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unit_pair(),
            _ => return Err(Refusal::Wrong("an unknown escape")),
        })
    }

    /// One UTF-16 unit, or two that belong together.
    fn unit_pair(&mut self) -> Result<char, Refusal> {
        let mut units = vec![self.unit()?];
        if (0xd800..0xdc00).contains(&units[0]) {
            self.expect(b'\\', "a lone surrogate")?;
            self.expect(b'u', "a lone surrogate")?;
            units.push(self.unit()?);
        }
        let text = String::from_utf16(&units).map_err(|_| Refusal::Wrong("a lone surrogate"))?;
        Ok(text.chars().next().expect("one or two units were read"))
    }

    fn unit(&mut self) -> Result<u16, Refusal> {
        const FOUR: Refusal = Refusal::Wrong("an escape needs four digits");
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
        let number: f64 = digits.parse().map_err(|_| Refusal::Wrong("no number"))?;
        self.unsure |= number.abs() > LARGEST;
        Ok(Json::Number(digits))
    }

    fn digits(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Refusal::Wrong("no digits")) }
    }
}
