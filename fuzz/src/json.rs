//! An independent reader of JSON (RFC 8259), which keeps what other readers lose: the raw text of every value,
//! duplicate members, numbers of any size, and strings that are not Unicode text.

/// A value.
#[derive(Clone, Debug)]
pub struct Json<'a> {
    /// Its text, without the whitespace around it.
    pub raw: &'a str,
    /// Its type and content.
    pub kind: Kind<'a>,
}

/// The type and content of a value.
#[derive(Clone, Debug)]
pub enum Kind<'a> {
    /// `null`.
    Null,
    /// A number, `true` or `false`.
    Scalar,
    /// A string. Unpaired surrogates are U+FFFD in its text, and `whole` is true if there were none.
    Text { text: String, whole: bool },
    /// An array.
    Array(Vec<Json<'a>>),
    /// The members in order, duplicates included.
    Object(Vec<(Option<String>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads a complete text. `None` for anything but one value with optional whitespace around it and a byte order
    /// mark before that.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = Reader { text, at: 0 };
        reader.skip_space();
        let value = reader.value(0)?;
        reader.skip_space();
        (reader.at == text.len()).then_some(value)
    }

    /// True for text that may nest deeper than this reader supports, also in a string that holds JSON. No verdict is
    /// possible on such text.
    pub fn is_beyond(text: &str) -> bool {
        text.bytes().filter(|byte| matches!(byte, b'[' | b'{' | b'\\')).count() > DEPTH_MAX
    }

    /// The named members of an object, each present once at most; others may be present. `None` when the value is not
    /// an object, when one of these members is duplicated, or when a name is not Unicode text.
    pub fn members<'s, const N: usize>(&'s self, names: [&str; N]) -> Option<[Option<&'s Json<'a>>; N]> {
        let Kind::Object(members) = &self.kind else { return None };
        let mut found = [None; N];
        for (name, value) in members {
            let name = name.as_ref()?;
            if let Some(index) = names.iter().position(|wanted| wanted == name) {
                if found[index].is_some() {
                    return None;
                }
                found[index] = Some(value);
            }
        }
        Some(found)
    }
}

/// Far from stack exhaustion.
const DEPTH_MAX: usize = 200;

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn value(&mut self, depth: usize) -> Option<Json<'a>> {
        if depth > DEPTH_MAX {
            return None;
        }
        let start = self.at;
        let kind = match self.peek()? {
            b'"' => {
                let units = self.string()?;
                Kind::Text { text: String::from_utf16_lossy(&units), whole: String::from_utf16(&units).is_ok() }
            }
            b'[' => self.array(depth)?,
            b'{' => self.object(depth)?,
            b'n' => self.word("null").map(|()| Kind::Null)?,
            b't' => self.word("true").map(|()| Kind::Scalar)?,
            b'f' => self.word("false").map(|()| Kind::Scalar)?,
            _ => self.number().map(|()| Kind::Scalar)?,
        };
        Some(Json { raw: &self.text[start..self.at], kind })
    }

    fn array(&mut self, depth: usize) -> Option<Kind<'a>> {
        self.take(b'[')?;
        self.skip_space();
        let mut elements = Vec::new();
        if self.take(b']').is_some() {
            return Some(Kind::Array(elements));
        }
        loop {
            self.skip_space();
            elements.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take(b',').is_none() {
                self.take(b']')?;
                return Some(Kind::Array(elements));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Kind<'a>> {
        self.take(b'{')?;
        self.skip_space();
        let mut members = Vec::new();
        if self.take(b'}').is_some() {
            return Some(Kind::Object(members));
        }
        loop {
            self.skip_space();
            let name = self.string()?;
            self.skip_space();
            self.take(b':')?;
            self.skip_space();
            members.push((String::from_utf16(&name).ok(), self.value(depth + 1)?));
            self.skip_space();
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(Kind::Object(members));
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// The code units of a string; `None` means bad syntax.
    fn string(&mut self) -> Option<Vec<u16>> {
        self.take(b'"')?;
        let mut units: Vec<u16> = Vec::new();
        loop {
            let letter = self.text[self.at..].chars().next()?;
            self.at += letter.len_utf8();
            match letter {
                '"' => return Some(units),
                '\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    units.push(match escape {
                        b'"' | b'\\' | b'/' => u16::from(escape),
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => 10,
                        b'r' => 13,
                        b't' => 9,
                        b'u' => {
                            let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                            self.at += 4;
                            digits.iter().try_fold(0, |unit: u16, digit| {
                                Some(unit << 4 | char::from(*digit).to_digit(16)? as u16)
                            })?
                        }
                        _ => return None,
                    });
                }
                letter if u32::from(letter) < 0x20 => return None,
                letter => units.extend(letter.encode_utf16(&mut [0; 2]).iter()),
            }
        }
    }
}
