//! The model's own chat template: where it comes from, and how it is run.
//!
//! The template is the source of truth for what a conversation looks like in tokens, because it is what a served model
//! is prompted with. It is Jinja written for Python, so the engine is set up to behave as transformers sets Jinja up:
//! blocks trimmed, no escaping of HTML, Python's methods and Python's JSON. It is also a program that came with a
//! download, so it runs on a budget of fuel and output, reads no file and asks no clock.

use crate::digest::hex;
use crate::error::{Error, Result, chain};
use crate::file::read_text;
use crate::limits;
use crate::row::date::Date;
use crate::row::input::TemplateInput;
use crate::text::python::tojson;
use crate::text::python_text::print;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

/// The template that OpenAI publishes with gpt-oss (Apache-2.0, see `assets/README.md`).
pub(crate) const OFFICIAL: &str = include_str!("../../assets/gpt-oss-chat_template.jinja");
const NAME: &str = "chat_template";

/// Where a template came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateSource {
    /// The official one, built in.
    Embedded,
    /// A template file, of the model directory or given by the user.
    File(PathBuf),
    /// The `chat_template` of a `tokenizer_config.json`.
    TokenizerConfig(PathBuf),
}

impl std::fmt::Display for TemplateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded => f.write_str("built-in gpt-oss template"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::TokenizerConfig(path) => write!(f, "{}: chat_template", path.display()),
        }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: TemplateSource,
    sha256: String,
}

impl ChatTemplate {
    /// The official template.
    ///
    /// # Errors
    /// Never in a tested build; the type is that of every other template.
    pub fn official() -> Result<Self> {
        Self::compile(OFFICIAL.to_owned(), TemplateSource::Embedded)
    }

    /// The template of a model directory: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`, else
    /// the official one. With `path`, that file and no other.
    ///
    /// # Errors
    /// When the chosen file cannot be read or does not compile; a broken choice never falls through to the next.
    pub fn load(model_dir: &Path, path: Option<&Path>) -> Result<Self> {
        if let Some(path) = path {
            return Self::from_file(path);
        }
        let file = model_dir.join("chat_template.jinja");
        if exists(&file)? {
            return Self::from_file(&file);
        }
        let config = model_dir.join("tokenizer_config.json");
        if exists(&config)?
            && let Some(text) = template_of_config(&config)?
        {
            return Self::compile(text, TemplateSource::TokenizerConfig(config));
        }
        Self::official()
    }

    /// A template file.
    ///
    /// # Errors
    /// When the file cannot be read or does not compile.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::compile(read_text(path, limits::TEMPLATE_BYTES)?, TemplateSource::File(path.to_path_buf()))
    }

    fn compile(text: String, source: TemplateSource) -> Result<Self> {
        let bad = |error: minijinja::Error| Error::TemplateCompile {
            name: source.to_string(),
            reason: chain(&error),
        };
        let sha256 = hex(&Sha256::digest(text.as_bytes()));
        let mut env = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(bad)?);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.set_fuel(Some(limits::TEMPLATE_FUEL));
        env.set_formatter(print);
        env.add_filter("tojson", tojson);
        env.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        env.add_template_owned(NAME, without_generation_tags(&text)).map_err(bad)?;
        Ok(Self { env, source, sha256 })
    }

    /// SHA-256 of the template's text, for the run's record.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Where the template came from.
    pub fn source(&self) -> &TemplateSource {
        &self.source
    }

    /// Renders the text of a conversation on a given day.
    ///
    /// # Errors
    /// When the template refuses the input, runs out of fuel, or writes more than its limit.
    pub fn render(&self, input: &TemplateInput, date: Date) -> Result<String> {
        let refused = |error: minijinja::Error| Error::TemplateRefused { field: None, reason: chain(&error) };
        let template = self.env.get_template(NAME).map_err(refused)?;
        let mut variables: Vec<(String, Value)> = vec![
            ("messages".to_owned(), Value::from(Serde(&input.messages))),
            ("tools".to_owned(), Value::from(Serde(&input.tools))),
            ("add_generation_prompt".to_owned(), Value::from(input.add_generation_prompt)),
            (
                "strftime_now".to_owned(),
                Value::from_function(move |pattern: String| strftime_now(date, &pattern)),
            ),
        ];
        variables.extend(input.kwargs.iter().map(|(key, value)| (key.clone(), Value::from(Serde(value)))));
        let mut out = Bounded { bytes: Vec::with_capacity(2048), overflow: false };
        let result = template.render_captured_to(Value::from_pairs(variables), &mut out).map(drop);
        if out.overflow {
            return Err(Error::TemplateOutput { limit: limits::RENDERED_BYTES });
        }
        result.map_err(refused)?;
        String::from_utf8(out.bytes).map_err(|error| Error::TemplateRefused {
            field: None,
            reason: format!("the output is not text: {error}"),
        })
    }
}

/// The template without `{% generation %}` and its end, with which templates mark what an assistant writes for trainers
/// that go by it. They render nothing; a condition that always holds is in their place, with the same white space.
fn without_generation_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once("{%") {
        out += before;
        out += "{%";
        let Some((inside, after)) = tag.split_once("%}") else {
            out += tag;
            return out;
        };
        out += &match inside.trim_matches(['-', '+']).trim() {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => inside.to_owned(),
        };
        out += "%}";
        rest = after;
    }
    out + rest
}

/// The function by which templates ask for the date; the answer is the caller's.
fn strftime_now(date: Date, pattern: &str) -> Result<String, minijinja::Error> {
    date.format(pattern).ok_or_else(|| {
        let reason = format!("strftime_now: `{pattern}` asks for more than a date (%Y %m %d %B %b)");
        minijinja::Error::new(ErrorKind::InvalidOperation, reason)
    })
}

/// `chat_template` of a `tokenizer_config.json`: a text, or a list of named texts of which `default` is taken.
fn template_of_config(path: &Path) -> Result<Option<String>> {
    let bad = |reason: String| Error::TemplateCompile { name: path.display().to_string(), reason };
    let text = read_text(path, limits::TOKENIZER_CONFIG_BYTES)?;
    let config: Json = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let template = match config.get("chat_template") {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(template)) => template.clone(),
        Some(Json::Array(named)) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Json::as_str) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str().map(str::to_owned))
            .ok_or_else(|| bad("chat_template is a list without an entry `default`".to_owned()))?,
        Some(_) => return Err(bad("chat_template is neither a text nor a list".to_owned())),
    };
    Ok(Some(template))
}

/// Whether a file is there; a directory that cannot be searched is an error, not an absence.
fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

/// A writer that stops at the limit.
struct Bounded {
    bytes: Vec<u8>,
    overflow: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > limits::RENDERED_BYTES {
            self.overflow = true;
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
