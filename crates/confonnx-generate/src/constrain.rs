//! Answers that have to be JSON, of any schema: at each step only tokens that can still become such.

use std::panic::{AssertUnwindSafe, catch_unwind};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    token_bytes_from_tokenizer_json,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};

/// The tokens of a model, for which schemas are compiled.
pub(crate) struct Forms(ParserFactory);

/// The constraint of an answer: what it can still become.
pub struct Constraint(Matcher);

/// Tokens that may come next.
pub struct Allowed(SimpleVob);

/// Why there is no such constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// It is not known which bytes the model's tokens stand for.
    #[error(
        "the model's tokenizer does not say which bytes its tokens stand for; expected one of bytes (ByteLevel or ByteFallback)"
    )]
    Tokens,
    /// A schema that is too long.
    #[error("the schema has {found} bytes; expected at most {limit}")]
    Large {
        /// How many bytes it has.
        found: usize,
        /// How many bytes are allowed.
        limit: usize,
    },
    /// A schema with more patterns than can be compiled while others wait.
    #[error(
        "the schema has too many patterns; expected at most 64 of \"pattern\", \"format\" and \"patternProperties\", and at \
         most 8 where \"allOf\" joins them"
    )]
    Patterns,
    /// A schema that is none, has what is not known here, or takes too much to compile.
    #[error(
        "the schema cannot be used; expected JSON Schema (draft 2020-12) without references to other documents, and less of it \
         if it is large"
    )]
    Schema,
}

impl Forms {
    /// The bytes of each token, as `tokenizer.json` says.
    pub(crate) fn words(tokenizer: &Value) -> Option<Vec<Vec<u8>>> {
        token_bytes_from_tokenizer_json(tokenizer).ok()
    }

    /// Forms for a model with tokens of these bytes, of which `ends` end an answer.
    pub(crate) fn new(words: &[Vec<u8>], ends: &[u32]) -> Option<Self> {
        let tokens = u32::try_from(words.len()).ok()?;
        let make = || {
            let trie = TokTrie::from(&TokRxInfo::new(tokens, *ends.first()?), words).with_eos_tokens(ends);
            let env: TokEnv = std::sync::Arc::new(ApproximateTokEnv::new(trie));
            let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &[]).ok()?;
            factory.quiet();
            *factory.limits_mut() = LIMITS;
            Some(Self(factory))
        };
        catch_unwind(AssertUnwindSafe(make)).ok().flatten()
    }

    /// The constraint of an answer that is JSON of `schema`.
    pub(crate) fn constraint(&self, schema: &Value) -> Result<Constraint, ConstraintError> {
        let found = schema.to_string().len();
        if found > LARGEST {
            return Err(ConstraintError::Large { found, limit: LARGEST });
        }
        let patterns = Patterns::of(schema);
        if patterns.all > MOST_PATTERNS || patterns.all.min(patterns.joins) > MOST_JOINED {
            return Err(ConstraintError::Patterns);
        }
        let mut schema = schema.clone();
        // Options of the compiler, which would be read from the schema.
        let options = schema.as_object_mut().ok_or(ConstraintError::Schema)?;
        options.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": SPACE }));
        // The compiler panics on some schemas that it does not expect.
        let compile = || {
            let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(schema));
            let mut matcher = Matcher::new(Ok(parser.ok()?));
            matcher.compute_mask_or_eos().ok()?;
            Some(Constraint(matcher))
        };
        catch_unwind(AssertUnwindSafe(compile)).ok().flatten().ok_or(ConstraintError::Schema)
    }
}

/// What the compiler has no limit for: it looks whether a text can have all of several patterns, which takes seconds if
/// these are some twenty, and does so for each of them with a length.
#[derive(Default)]
struct Patterns {
    all: usize,
    /// Places where one pattern can be added to another.
    joins: usize,
}

impl Patterns {
    fn of(schema: &Value) -> Self {
        let mut patterns = Self::default();
        patterns.count(schema);
        patterns
    }

    /// As deep as JSON is read.
    fn count(&mut self, schema: &Value) {
        match schema {
            Value::Array(schemas) => schemas.iter().for_each(|schema| self.count(schema)),
            Value::Object(members) => {
                let is_pattern = |name: &str| members.get(name).is_some_and(Value::is_string);
                let own = [is_pattern("pattern"), is_pattern("format")].into_iter().filter(|is| *is).count();
                let named = members
                    .get("patternProperties")
                    .and_then(Value::as_object)
                    .map_or(0, |names| names.len());
                self.all = self.all.saturating_add(own).saturating_add(named);
                let all_of = members.get("allOf").and_then(Value::as_array).map_or(0, Vec::len);
                let beside = usize::from(is_pattern("$ref") && (own > 0 || all_of > 0));
                self.joins = self.joins.saturating_add(all_of).saturating_add(beside);
                members.values().for_each(|schema| self.count(schema));
            }
            _ => {}
        }
    }
}

impl Constraint {
    /// The tokens that may come next; none if that takes too much to say.
    pub fn allowed(&mut self) -> Option<Allowed> {
        self.0.compute_mask_or_eos().ok().map(Allowed)
    }

    /// Whether it may go on with `token`, which is taken.
    pub fn take(&mut self, token: u32) -> bool {
        self.0.consume_token(token).is_ok()
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self(self.0.deep_clone())
    }
}

impl Allowed {
    /// Whether `token` may come.
    pub fn has(&self, token: u32) -> bool {
        usize::try_from(token).is_ok_and(|at| at < self.0.len()) && self.0.is_allowed(token)
    }
}

impl std::fmt::Debug for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allowed").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

/// Between two words of an answer: enough to indent it, and an end to it, for models that would go on with spaces for ever.
const SPACE: &str = r"[\x20\x0A\x0D\x09]{1,64}";
/// How many bytes a schema may have.
const LARGEST: usize = 64 << 10;
/// How many patterns a schema may have, and how many of them for one text.
const MOST_PATTERNS: usize = 64;
const MOST_JOINED: usize = 8;
/// Limits that are some milliseconds of a step, and some megabytes of an answer.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 1000,
    initial_lexer_fuel: 500_000,
    step_lexer_fuel: 100_000,
    step_max_items: 25_000,
    max_lexer_states: 10_000,
    max_grammar_size: 50_000,
    precompute_large_lexemes: false,
    verbose_errors: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A token for each byte, and one that ends.
    fn forms() -> Forms {
        let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        words.push(b"\xff<|end|>".to_vec());
        Forms::new(&words, &[256]).unwrap()
    }

    fn accepts(schema: &Value, text: &str) -> bool {
        let mut constraint = forms().constraint(schema).unwrap();
        let mut tokens = text.bytes().map(u32::from);
        // The token that ends it is not taken.
        tokens.all(|token| constraint.allowed().unwrap().has(token) && constraint.take(token))
            && constraint.allowed().unwrap().has(256)
    }

    #[test]
    fn only_what_the_schema_says_is_allowed() {
        let schema = json!({ "type": "object", "properties": { "age": { "type": "integer" }, "sex": { "enum": ["f", "m"] } },
            "required": ["age"], "additionalProperties": false });
        for (text, fits) in [
            (r#"{"age": 5}"#, true),
            (r#"{"age":5,"sex":"f"}"#, true),
            (r#"{"age": "5"}"#, false),
            (r#"{"sex": "f"}"#, false),
            (r#"{"age": 5, "more": 1}"#, false),
            (r#"{"age": 5"#, false),
            (r#"{"age": 5} and"#, false),
        ] {
            assert_eq!(accepts(&schema, text), fits, "{text}");
        }
        let any = json!({ "type": "object" });
        assert!(accepts(&any, r#"{"a": [1, {"é": null}]}"#) && accepts(&any, "{\n    \"a\": 1\n}"));
        assert!(!accepts(&any, &format!("{{{}}}", " ".repeat(70))), "spaces without end");
        let named = json!({ "$defs": { "n": { "type": "number" } }, "type": "array", "items": { "$ref": "#/$defs/n" } });
        assert!(accepts(&named, "[1, 2.5]") && !accepts(&named, "[true]"));
    }

    #[test]
    fn hostile_schemas_are_refused() {
        let forms = forms();
        let refused = |schema: &Value| forms.constraint(schema).map(drop).expect_err(&schema.to_string());
        for schema in
            [json!(true), json!({ "type": "nonsense" }), json!({ "$ref": "https://example.org/other" })]
        {
            assert_eq!(refused(&schema), ConstraintError::Schema);
        }
        // A pattern that would be vast if it were written out is not written out.
        let vast = json!({ "type": "string", "pattern": "(((((a{999}){999}){999}){999}){999})" });
        let mut vast = forms.constraint(&vast).unwrap();
        for token in b"\"aaa" {
            assert!(vast.allowed().unwrap().has(u32::from(*token)) && vast.take(u32::from(*token)));
        }
        assert!(matches!(refused(&json!({ "enum": ["x".repeat(70_000)] })), ConstraintError::Large { .. }));
        let many: Vec<Value> = (0..3000).map(|n| json!({ "required": [format!("k{n}")] })).collect();
        let large = refused(&json!({ "allOf": many }));
        assert!(matches!(large, ConstraintError::Schema | ConstraintError::Large { .. }), "{large}");
        let pattern = |n: usize| json!({ "type": "string", "pattern": format!("^a{{{n}}}$") });
        let patterns = |many: usize| (1..=many).map(pattern).collect::<Vec<Value>>();
        assert!(forms.constraint(&json!({ "anyOf": patterns(64) })).is_ok());
        assert_eq!(refused(&json!({ "anyOf": patterns(65) })), ConstraintError::Patterns);
        // They say different lengths, so that no text has all of them.
        assert_eq!(refused(&json!({ "allOf": patterns(8) })), ConstraintError::Schema);
        assert_eq!(refused(&json!({ "allOf": patterns(9) })), ConstraintError::Patterns);
        let chain = |n: usize| json!({ "$ref": format!("#/$defs/{}", n + 1), "pattern": format!("a{n}") });
        let mut defs: serde_json::Map<String, Value> = (0..9).map(|n| (n.to_string(), chain(n))).collect();
        defs.insert("9".to_owned(), json!({ "type": "string" }));
        assert_eq!(refused(&json!({ "$defs": defs, "$ref": "#/$defs/0" })), ConstraintError::Patterns);
        let named =
            json!({ "properties": { "pattern": { "type": "string" }, "format": { "type": "string" } } });
        assert_eq!(Patterns::of(&named).all, 0, "names of properties are no patterns");
        let mut deep = json!({ "type": "string" });
        for _ in 0..100 {
            deep = json!({ "type": "array", "items": deep });
        }
        assert!(forms.constraint(&deep).is_ok(), "as deep as JSON is read");
        // A schema that is itself: the answer is as long as the answer may be.
        let endless = json!({ "$defs": { "a": { "type": "array", "items": { "$ref": "#/$defs/a" } } }, "$ref": "#/$defs/a" });
        let mut endless = forms.constraint(&endless).unwrap();
        for _ in 0..1000 {
            assert!(endless.allowed().unwrap().has(u32::from(b'[')) && endless.take(u32::from(b'[')));
        }
    }
}
