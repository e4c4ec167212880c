//! Chat templates, in the dialect that Hugging Face's `transformers` renders.

use std::{fmt::Write as _, io};

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context, syntax::SyntaxConfig};

use super::{FilesError, TextError};

/// The role of who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The operator, to whose words the others are to keep.
    System,
    /// `System`, as newer clients call it.
    Developer,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
    /// A program that answers the model.
    Tool,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// A chat template that was read.
pub(super) struct Template {
    environment: Environment<'static>,
    specials: Vec<(&'static str, String)>,
}

impl Template {
    pub(super) fn new(source: &str, specials: Vec<(&'static str, String)>) -> Result<Self, FilesError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| FilesError::Template(error.to_string()))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{text}")))
        });
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, without_generation_marks(source)).map_err(|error| {
            FilesError::Template(format!("{} (line {})", error.kind(), error.line().unwrap_or(0)))
        })?;
        Ok(Self { environment, specials })
    }

    pub(super) fn render(&self, messages: &[Message], now: u64) -> Result<String, TextError> {
        let template = self.environment.get_template(NAME).map_err(|_| TextError::NoTemplate)?;
        let specials: Value =
            Value::from_pairs(self.specials.iter().map(|(key, text)| (*key, text.as_str())));
        let said = context! {
            messages => messages.iter().map(value).collect::<Vec<_>>(),
            add_generation_prompt => true,
            strftime_now => Value::from_function(move |format: String| strftime(now, &format)),
            ..specials
        };
        let mut out = Bounded(Vec::new());
        let rendered = template.render_captured_to(said, &mut out).map(drop);
        let text = rendered.map_err(|error| error_of(&error)).map(|()| String::from_utf8(out.0));
        text?.map_err(|_| TextError::Tokenizer)
    }
}

fn value(message: &Message) -> Value {
    Value::from_pairs([("role", message.role.name()), ("content", &message.content)])
}

fn error_of(error: &Error) -> TextError {
    // What a template says of a conversation is its owner's text; other errors could quote a message.
    if let Some(said) = error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        return TextError::Refused(said.chars().take(200).collect());
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TextError::TooLong,
        ErrorKind::WriteFailure => TextError::TooLarge { limit: LARGEST },
        kind => TextError::Refused(format!("{kind} (line {} of the template)", error.line().unwrap_or(0))),
    }
}

/// The template in `tokenizer_config.json`: a text, or a list of named ones, of which the default counts.
pub(super) fn of_config(config: &serde_json::Value) -> Option<String> {
    let template = config.get("chat_template")?;
    let named = || {
        let all = template.as_array()?;
        all.iter()
            .find(|one| one.get("name").and_then(|name| name.as_str()) == Some("default"))?
            .get("template")?
            .as_str()
    };
    template.as_str().or_else(named).map(str::to_owned)
}

/// Marks around what the model itself said, which only training looks at.
fn without_generation_marks(source: &str) -> String {
    let mut out = source.to_owned();
    for word in ["generation", "endgeneration"] {
        for (left, right) in [("", ""), ("-", ""), ("", "-"), ("-", "-")] {
            out = out.replace(&format!("{{%{left} {word} {right}%}}"), "");
        }
    }
    out
}

/// The value as Python's `json.dumps` writes it, with `ensure_ascii` off.
fn to_json(value: &Value, options: minijinja::value::Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |_| Error::new(ErrorKind::BadSerialization, "no JSON");
    let plain = serde_json::to_value(value).map_err(failed)?;
    let mut out = String::new();
    write_json(&plain, indent.map(|indent| indent.min(16)), 0, &mut out);
    Ok(Value::from_safe_string(out))
}

fn write_json(value: &serde_json::Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let new_line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth)));
        }
    };
    let deeper = depth.saturating_add(1);
    let separator = |first: bool, out: &mut String| {
        if !first {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        new_line(deeper, out);
    };
    match value {
        serde_json::Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                separator(index == 0, out);
                write_json(item, indent, deeper, out);
            }
            new_line(depth, out);
            out.push(']');
        }
        serde_json::Value::Object(items) if !items.is_empty() => {
            out.push('{');
            for (index, (key, item)) in items.iter().enumerate() {
                separator(index == 0, out);
                let _ = write!(out, "{}: ", serde_json::Value::from(key.as_str()));
                write_json(item, indent, deeper, out);
            }
            new_line(depth, out);
            out.push('}');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// The conversions of `strftime` that templates use; others stay as they are.
fn strftime(now: u64, format: &str) -> String {
    let days = now / 86_400;
    let (year, month, day) = civil(days);
    let seconds = now % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let name = |names: &'static [&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
    };
    let month_name = name(&MONTHS, month.saturating_sub(1));
    let day_name = name(&DAYS, days % 7);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let _ = match rest.next() {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('B') => write!(out, "{month_name}"),
            Some('b' | 'h') => write!(out, "{:.3}", month_name),
            Some('A') => write!(out, "{day_name}"),
            Some('a') => write!(out, "{:.3}", day_name),
            Some('H') => write!(out, "{hour:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => write!(out, "UTC"),
            Some('%') => write!(out, "%"),
            Some(other) => write!(out, "%{other}"),
            None => write!(out, "%"),
        };
    }
    out
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
#[allow(clippy::arithmetic_side_effects)]
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days.min(1 << 32) + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// A text that does not grow without end.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const NAME: &str = "chat";
/// The mark before a text that a template raises itself.
const RAISED: &str = "raised: ";
/// Steps of a template: some hundred for each message, of which there are thousands at most.
const FUEL: u64 = 4_000_000;
const RECURSION: usize = 100;
/// How many bytes a template may make of a conversation.
const LARGEST: usize = 16 << 20;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The days of the week, from that of 1 January 1970 on.
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> Template {
        Template::new(source, vec![("bos_token", "<s>".into())]).unwrap()
    }

    fn said(contents: &[&str]) -> Vec<Message> {
        let roles = [Role::User, Role::Assistant].into_iter().cycle();
        roles.zip(contents).map(|(role, content)| Message { role, content: (*content).to_owned() }).collect()
    }

    #[test]
    fn what_templates_use_is_there() {
        let source = "{{ bos_token }}{% for m in messages %}{% generation %}\n  {% if m['role'] == 'user' and \
            not m.content.startswith('x') %}[{{ loop.index0 }} {{ m['content'] | trim }} {{ m.content.split(' ')[-1] }}]\
            {% else %}{% continue %}{% endif %}{% endgeneration %}\n{% endfor %}\
            {% if add_generation_prompt %}A:{% endif %}{{ [1, {'a': 'é<'}] | tojson }}{{ strftime_now('%d %b %Y') }}";
        let text = template(source).render(&said(&[" hello you ", "x", "é"]), 1_732_665_600).unwrap();
        assert_eq!(
            text,
            "<s>[0 hello you you ][2 é é]A:[1, {\"a\": \"é<\"}]27 Nov 2024".replace("you ]", "]")
        );
    }

    #[test]
    fn json_is_indented_as_python_does() {
        let text = template("{{ {'b': [1, 2], 'a': []} | tojson(indent=2) }}").render(&[], 0).unwrap();
        assert_eq!(text, "{\n  \"a\": [],\n  \"b\": [\n    1,\n    2\n  ]\n}");
    }

    #[test]
    fn a_template_refuses_by_its_own_words_and_errors_quote_nothing() {
        let error = template("{{ raise_exception('roles must alternate') }}").render(&[], 0).unwrap_err();
        assert_eq!(error, TextError::Refused("roles must alternate".into()));
        let error = template("{{ messages[0].content | int }}").render(&said(&["secret"]), 0).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn bombs_do_not_go_off() {
        let many = "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}";
        let error = template(many).render(&[], 0).unwrap_err();
        assert!(matches!(error, TextError::TooLong | TextError::TooLarge { .. }), "{error}");
        let large = "{% for a in range(100) %}{{ 'x' * 1000000 }}{% endfor %}";
        assert_eq!(template(large).render(&[], 0), Err(TextError::TooLarge { limit: LARGEST }));
        let deep = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
        assert!(matches!(template(deep).render(&[], 0), Err(TextError::Refused(_))));
        assert!(template("{{ 'x' * 100000000000 }}").render(&[], 0).is_err());
        assert!(matches!(Template::new("{% for %}", vec![]), Err(FilesError::Template(_))));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (now, text) in [
            (0, "Thursday 1970-01-01"),
            (951_782_400, "Tuesday 2000-02-29"),
            (4_107_542_399, "Sunday 2100-02-28"),
        ] {
            assert_eq!(strftime(now, "%A %F"), text);
        }
        assert_eq!(strftime(86_399, "%H:%M:%S %y %e %q%"), "23:59:59 70  1 %q%");
        strftime(u64::MAX, "%F");
    }
}
