//! Protobuf's text format, as far as `config.pbtxt` files use it: messages, lists, strings, whole numbers, words.

use std::fmt;

use super::ModelConfigError;

/// A field of a message; those of a list stand one by one.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Message(Vec<Field>),
    Text(String),
    Number(i64),
    /// `true`, `TYPE_FP32`
    Word(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(_) => f.write_str("a message"),
            Self::Text(text) | Self::Word(text) => write!(f, "{:?}", shortened(text)),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Reads all fields of `text`.
pub(super) fn parse(text: &str) -> Result<Vec<Field>, ModelConfigError> {
    let mut parser = Parser { tokens: Tokens { rest: text, line: 1 }, next: None };
    let mut fields = Vec::new();
    while parser.peek()?.is_some() {
        parser.field(&mut fields, 0)?;
    }
    Ok(fields)
}

#[derive(Clone, Debug)]
enum Token {
    Sign(char),
    Text(String),
    Number(i64),
    Word(String),
}

struct Parser<'t> {
    tokens: Tokens<'t>,
    next: Option<(usize, Token)>,
}

impl Parser<'_> {
    fn peek(&mut self) -> Result<Option<&(usize, Token)>, ModelConfigError> {
        if self.next.is_none() {
            self.next = self.tokens.next()?;
        }
        Ok(self.next.as_ref())
    }

    fn take(&mut self, expected: &'static str) -> Result<(usize, Token), ModelConfigError> {
        self.peek()?;
        let line = self.tokens.line;
        self.next.take().ok_or(ModelConfigError::Syntax { line, expected, found: "the end".into() })
    }

    fn take_sign(&mut self, signs: &[char]) -> Result<Option<char>, ModelConfigError> {
        match self.peek()? {
            Some((_, Token::Sign(sign))) if signs.contains(sign) => {
                let sign = *sign;
                self.next = None;
                Ok(Some(sign))
            }
            _ => Ok(None),
        }
    }

    fn field(&mut self, fields: &mut Vec<Field>, depth: usize) -> Result<(), ModelConfigError> {
        let (line, name) = match self.take("a field")? {
            (line, Token::Word(name)) => (line, name),
            (line, found) => return Err(unexpected(line, "a field", &found)),
        };
        // Before a message the colon may be left out.
        let colon = self.take_sign(&[':'])?.is_some();
        if self.take_sign(&['['])?.is_some() {
            if self.take_sign(&[']'])?.is_none() {
                loop {
                    let value = self.value(colon, depth)?;
                    fields.push(Field { line, name: name.clone(), value });
                    if self.take_sign(&[']'])?.is_some() {
                        break;
                    }
                    if self.take_sign(&[','])?.is_none() {
                        let (line, found) = self.take("`,` or `]`")?;
                        return Err(unexpected(line, "`,` or `]`", &found));
                    }
                }
            }
        } else {
            let value = self.value(colon, depth)?;
            fields.push(Field { line, name, value });
        }
        self.take_sign(&[',', ';'])?;
        Ok(())
    }

    fn value(&mut self, colon: bool, depth: usize) -> Result<Value, ModelConfigError> {
        if let Some(open) = self.take_sign(&['{', '<'])? {
            let line = self.tokens.line;
            if depth >= MAX_DEPTH {
                return Err(ModelConfigError::Syntax {
                    line,
                    expected: "fewer messages in each other",
                    found: "another".into(),
                });
            }
            let close = if open == '{' { '}' } else { '>' };
            let mut fields = Vec::new();
            while self.take_sign(&[close])?.is_none() {
                self.field(&mut fields, depth.saturating_add(1))?;
            }
            return Ok(Value::Message(fields));
        }
        let expected = if colon { "a value" } else { "`:` or `{`" };
        match self.take(expected)? {
            (_, Token::Number(number)) if colon => Ok(Value::Number(number)),
            (_, Token::Word(word)) if colon => Ok(Value::Word(word)),
            (_, Token::Text(mut text)) if colon => {
                // Strings that follow each other are one.
                while let Some((_, Token::Text(more))) = self.peek()? {
                    text.push_str(more);
                    self.next = None;
                }
                Ok(Value::Text(text))
            }
            (line, found) => Err(unexpected(line, expected, &found)),
        }
    }
}

fn unexpected(line: usize, expected: &'static str, found: &Token) -> ModelConfigError {
    let found = match found {
        Token::Sign(sign) => format!("`{sign}`"),
        Token::Text(text) | Token::Word(text) => format!("{:?}", shortened(text)),
        Token::Number(number) => number.to_string(),
    };
    ModelConfigError::Syntax { line, expected, found }
}

struct Tokens<'t> {
    rest: &'t str,
    line: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<(usize, Token)>, ModelConfigError> {
        loop {
            let trimmed = self.rest.trim_start_matches([' ', '\t', '\r']);
            self.rest = match trimmed.chars().next() {
                None => return Ok(None),
                Some('\n') => {
                    self.line = self.line.saturating_add(1);
                    trimmed.get(1..).unwrap_or_default()
                }
                Some('#') => trimmed.find('\n').and_then(|end| trimmed.get(end..)).unwrap_or_default(),
                Some(_) => {
                    self.rest = trimmed;
                    break;
                }
            };
        }
        let line = self.line;
        let token = match self.rest.chars().next() {
            Some(sign @ (':' | '{' | '}' | '<' | '>' | '[' | ']' | ',' | ';')) => {
                self.advance(sign.len_utf8());
                Token::Sign(sign)
            }
            Some(quote @ ('"' | '\'')) => self.text(quote)?,
            _ => self.bare()?,
        };
        Ok(Some((line, token)))
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// A word or a number.
    fn bare(&mut self) -> Result<Token, ModelConfigError> {
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let text = self.rest.get(..end).unwrap_or_default();
        let syntax = |found: &str, expected| ModelConfigError::Syntax {
            line: self.line,
            expected,
            found: format!("{:?}", shortened(found)),
        };
        let token = match text.chars().next() {
            None => {
                let found = self.rest.chars().next().map(String::from).unwrap_or_default();
                return Err(syntax(&found, "a field or a value"));
            }
            Some(first) if first.is_ascii_alphabetic() || first == '_' => {
                if text.contains(['-', '.', '+']) {
                    return Err(syntax(text, "a word"));
                }
                Token::Word(text.to_owned())
            }
            Some(_) => Token::Number(number(text).ok_or_else(|| syntax(text, "a whole number"))?),
        };
        self.advance(end);
        Ok(token)
    }

    fn text(&mut self, quote: char) -> Result<Token, ModelConfigError> {
        let line = self.line;
        let syntax =
            |expected, found: &str| ModelConfigError::Syntax { line, expected, found: found.to_owned() };
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\n' => return Err(syntax("the quote that ends the string", "the end of the line")),
                '\\' => match chars.next() {
                    Some((_, escaped @ ('\\' | '"' | '\''))) => text.push(escaped),
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    _ => return Err(syntax(r#"one of \\, \", \', \n and \t"#, "another escape")),
                },
                c if c == quote => {
                    self.advance(at.saturating_add(1));
                    return Ok(Token::Text(text));
                }
                c => text.push(c),
            }
        }
        Err(syntax("the quote that ends the string", "the end"))
    }
}

fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    // No second sign.
    let magnitude =
        digits.chars().all(|c| c.is_ascii_hexdigit()).then(|| i64::from_str_radix(digits, radix).ok())??;
    if negative { magnitude.checked_neg() } else { Some(magnitude) }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Files have four.
const MAX_DEPTH: usize = 16;
