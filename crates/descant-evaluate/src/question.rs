//! One question: a conversation that waits for its reply, and what the reply is judged by.
//!
//! It extends the training row, so rows of a data set are questions as they are. Asked twice: as it is, and with a
//! request for a reasoning language in the words of the training set.

use std::borrow::Cow;

use descant_harmony::read::Format;
use descant_harmony::{Conversation, Message, Place, Role};
use serde_json::{Map, Value as Json, json};

use crate::answer::Answer;
use crate::judge::Asked;
use crate::languages::{Language, names};
use crate::reading::recipients;

/// What a request for a reasoning language begins with.
const REQUEST: &str = "reasoning language: ";
/// Keys that a question has beside those of a training row.
const KEYS: [&str; 4] = ["id", "answer_language", "answer", "tags"];

/// A question.
#[derive(Debug, Clone)]
pub struct Question {
    /// Unique among all that are asked.
    pub id: String,
    /// Its line in the file, from 1; of parquet its row.
    pub line: u64,
    /// The conversation without a request for a language; its last message is the user's or a tool's.
    pub plain: Conversation,
    /// The reply that the row gives, where it has one: what the loss is measured on.
    pub reference: Option<Message>,
    /// The reasoning language to ask for.
    pub reasoning_language: Option<Language>,
    /// The language that the answer should have.
    pub answer_language: Option<Language>,
    /// What is right.
    pub answer: Answer,
    /// Recipients of the tools that are offered.
    pub tools: Vec<String>,
    /// Words to choose questions by.
    pub tags: Vec<String>,
    /// Text of all messages, request left out.
    pub prompt: String,
}

impl Question {
    /// Reads a row. `stem` names the file in the ids of rows without one; `unknown` receives each key that means
    /// nothing here, and how often it occurs.
    ///
    /// # Errors
    /// The key that does not fit, and why.
    pub(crate) fn from_row(
        row: &Map<String, Json>,
        stem: &str,
        line: u64,
        unknown: &mut dyn FnMut(&str, u64),
    ) -> Result<Self, String> {
        let row = &with_messages(row);
        let read =
            Format::of(row, None).and_then(|form| form.row(line, row)).map_err(|error| error.to_string())?;
        for key in read.ignored.iter() {
            match key.place {
                Place::Row if KEYS.contains(&key.key.as_str()) => {}
                Place::Row => unknown(&key.key, key.count),
                place => unknown(&format!("{} (in {})", key.key, place.plural()), key.count),
            }
        }
        let conversation = read.conversation().ok_or("text: rendered already; expected messages")?;
        let language = |key: &str| match text(row, key)? {
            None => Ok(None),
            Some(name) => Language::from_name(name)
                .map(Some)
                .ok_or_else(|| format!("{key}: `{name}` is not one of {}", names())),
        };
        let reasoning_language = language("reasoning_language")?;
        let last = conversation.messages.last().ok_or("messages: empty")?;
        let reference = (last.role == Role::Assistant).then(|| last.clone());
        let waiting = conversation.prefix(conversation.messages.len() - usize::from(reference.is_some()));
        let last = waiting.messages.last().ok_or("messages: nothing is left without the reply")?;
        if !matches!(last.role, Role::User | Role::Tool) {
            return Err(format!("messages: the last one is {}'s; expected user's or tool's", last.role));
        }
        let plain = without_request(waiting, reasoning_language)?;
        let id = text(row, "id")?.map_or_else(|| format!("{stem}:{line}"), str::to_owned);
        if id.is_empty() || id.contains(['\n', '\r']) {
            return Err("id: empty, or with a line break".into());
        }
        Ok(Self {
            id,
            line,
            tools: offered(&plain)?,
            prompt: plain.messages.iter().map(content).collect::<Vec<_>>().join("\n"),
            plain,
            reference,
            reasoning_language,
            answer_language: language("answer_language")?,
            answer: answer(row)?,
            tags: tags(row)?,
        })
    }

    /// The conversation with its request for a reasoning language, where it has one.
    pub fn asked(&self) -> Option<Conversation> {
        let language = self.reasoning_language?.name();
        let mut asked = self.plain.clone();
        match asked.messages.first_mut().filter(|m| matches!(m.role, Role::System | Role::Developer)) {
            Some(first) => first.content = Some(requested(language, Some(content(first))).into()),
            None => asked.messages.insert(0, Message::text(Role::System, requested(language, None))),
        }
        Some(asked)
    }

    /// The conversation as it is asked, with the row's own reply; `None` where it has none.
    pub fn answered(&self) -> Option<Conversation> {
        let mut conversation = self.asked().unwrap_or_else(|| self.plain.clone());
        conversation.messages.push(self.reference.clone()?);
        Some(conversation)
    }

    /// What the user says last, for people.
    pub fn user(&self) -> &str {
        let last = self.plain.messages.iter().rfind(|message| message.role == Role::User);
        last.map_or("", content)
    }

    /// What a reply to it is judged by.
    pub fn judged_by(&self, asked: bool) -> Asked<'_> {
        Asked {
            prompt: &self.prompt,
            language: self.reasoning_language.filter(|_| asked),
            answer_language: self.answer_language,
            answer: &self.answer,
            tools: &self.tools,
        }
    }
}

/// A row that is a prompt alone, `{"prompt": TEXT}` or `{"prompt": MESSAGES}`, as a row of messages: there is nothing
/// to train in it, and everything to ask.
fn with_messages(row: &Map<String, Json>) -> Cow<'_, Map<String, Json>> {
    let alone = !["messages", "conversations", "completion", "instruction", "text"]
        .iter()
        .any(|key| row.contains_key(*key));
    let messages = match row.get("prompt") {
        Some(Json::String(text)) if alone => json!([{"role": "user", "content": text}]),
        Some(Json::Array(messages)) if alone => Json::Array(messages.clone()),
        _ => return Cow::Borrowed(row),
    };
    let mut row = row.clone();
    row.remove("prompt");
    row.insert("messages".into(), messages);
    Cow::Owned(row)
}

/// Instructions that ask for reasoning in a language, in the words of the training set.
pub fn requested(language: &str, instructions: Option<&str>) -> String {
    match instructions {
        Some(instructions) => format!("{REQUEST}{language}\n\n{instructions}"),
        None => format!("{REQUEST}{language}"),
    }
}

/// The text of a message; `None` for other content.
fn content(message: &Message) -> &str {
    message.content.as_ref().and_then(Json::as_str).unwrap_or_default()
}

fn text<'r>(row: &'r Map<String, Json>, key: &str) -> Result<Option<&'r str>, String> {
    match row.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key}: expected a text")),
    }
}

/// What is right. A text that holds an object is that object: a column of parquet has one type, so that files with
/// answers of several kinds cannot write them otherwise.
fn answer(row: &Map<String, Json>) -> Result<Answer, String> {
    match row.get("answer") {
        None => Ok(Answer::None),
        Some(Json::String(text)) if text.trim_start().starts_with('{') => {
            let json = serde_json::from_str(text).map_err(|error| format!("answer: no JSON: {error}"))?;
            Answer::from_json(&json)
        }
        Some(json) => Answer::from_json(json),
    }
}

fn tags(row: &Map<String, Json>) -> Result<Vec<String>, String> {
    let wrong = || "tags: expected a list of words".to_owned();
    match row.get("tags") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(tags)) => {
            tags.iter().map(|t| t.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Recipients of the tools that a conversation offers.
fn offered(conversation: &Conversation) -> Result<Vec<String>, String> {
    let name = |(at, tool): (usize, &Json)| {
        let function = tool.get("function").unwrap_or(tool);
        let name = function.get("name").and_then(Json::as_str).map(str::to_owned);
        name.ok_or_else(|| format!("tools[{at}]: no name"))
    };
    let names = conversation.tools.iter().enumerate().map(name).collect::<Result<Vec<_>, _>>()?;
    let mut tools = recipients(&names);
    let built_in = conversation.template_kwargs.get("builtin_tools").and_then(Json::as_array);
    for tool in built_in.into_iter().flatten().filter_map(Json::as_str) {
        match tool {
            "browser" => tools.extend(["search", "open", "find"].map(|name| format!("browser.{name}"))),
            other => tools.push(other.to_owned()),
        }
    }
    Ok(tools)
}

/// Removes a request from the first message, and the message with it if nothing stays.
fn without_request(mut waiting: Conversation, language: Option<Language>) -> Result<Conversation, String> {
    let Some(first) = waiting.messages.first_mut() else { return Ok(waiting) };
    if !matches!(first.role, Role::System | Role::Developer) {
        return Ok(waiting);
    }
    let Some(rest) = content(first).strip_prefix(REQUEST).map(str::to_owned) else { return Ok(waiting) };
    let (name, rest) = rest.split_once('\n').unwrap_or((rest.as_str(), ""));
    if language.is_none_or(|language| language.name() != name.trim_end()) {
        let stated = language.map_or("absent", Language::name);
        return Err(format!("messages: the first one asks for {name}, but reasoning_language is {stated}"));
    }
    let rest = rest.trim_start_matches(['\n', '\r']).to_owned();
    if rest.is_empty() {
        waiting.messages.remove(0);
    } else {
        first.content = Some(rest.into());
    }
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(json: &str) -> Result<Question, String> {
        let row: Map<String, Json> = serde_json::from_str(json).unwrap();
        Question::from_row(&row, "file", 7, &mut |_, _| {})
    }

    fn texts(conversation: &Conversation) -> Vec<&str> {
        conversation.messages.iter().map(content).collect()
    }

    #[test]
    fn a_training_row_is_asked_with_its_request_and_without() {
        let question = question(
            r#"{"reasoning_language": "French", "messages": [
                {"role": "system", "content": "reasoning language: French\n\nYou are brief."},
                {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "thinking": "Un.", "content": "2"}]}"#,
        )
        .unwrap();
        assert_eq!(question.id, "file:7");
        assert_eq!(texts(&question.plain), ["You are brief.", "1 + 1?"]);
        assert_eq!(
            texts(&question.asked().unwrap()),
            ["reasoning language: French\n\nYou are brief.", "1 + 1?"]
        );
        assert_eq!(content(question.reference.as_ref().unwrap()), "2");
        assert_eq!((question.prompt.as_str(), question.user()), ("You are brief.\n1 + 1?", "1 + 1?"));
    }

    #[test]
    fn a_prompt_alone_is_a_question() {
        let text = question(r#"{"prompt": "1 + 1?", "answer": {"kind": "number", "value": "2"}}"#).unwrap();
        assert_eq!((text.user(), text.reference.is_none()), ("1 + 1?", true));
        let messages = question(r#"{"prompt": [{"role": "user", "content": "Hi"}]}"#).unwrap();
        assert_eq!(texts(&messages.plain), ["Hi"]);
        let whole = question(r#"{"prompt": "1 + 1?", "completion": "2"}"#).unwrap();
        assert_eq!(whole.reference.as_ref().map(content), Some("2"));
        assert!(question(r#"{"prompt": 3}"#).is_err());
    }

    #[test]
    fn a_request_alone_goes_with_its_message_and_comes_back() {
        let question = question(
            r#"{"id": "a", "reasoning_language": "German", "messages": [
                {"role": "system", "content": "reasoning language: German"}, {"role": "user", "content": "Hi"}]}"#,
        )
        .unwrap();
        assert_eq!(texts(&question.plain), ["Hi"]);
        assert_eq!(texts(&question.asked().unwrap()), ["reasoning language: German", "Hi"]);
        assert!(question.reference.is_none());
    }

    #[test]
    fn other_forms_and_tools_are_understood() {
        let alpaca = question(r#"{"instruction": "Say hi", "input": "", "output": "hi"}"#).unwrap();
        assert_eq!(texts(&alpaca.plain), ["Say hi"]);
        let tools = question(
            r#"{"messages": [{"role": "user", "content": "Hi"}], "builtin_tools": ["browser", "python"],
                "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}]}"#,
        )
        .unwrap();
        assert_eq!(tools.tools, ["functions.f", "browser.search", "browser.open", "browser.find", "python"]);
    }

    #[test]
    fn what_cannot_be_asked_names_its_key() {
        let user = r#""messages": [{"role": "user", "content": "Hi"}]"#;
        for (json, expected) in [
            (r#"{"messages": []}"#.to_owned(), "messages"),
            (r#"{"messages": [{"role": "assistant", "content": "Hi"}]}"#.to_owned(), "messages"),
            (
                r#"{"messages": [{"role": "system", "content": "Hi"}]}"#.to_owned(),
                "messages: the last one is system's",
            ),
            (
                format!(r#"{{{user}, "reasoning_language": "Klingon"}}"#),
                "reasoning_language: `Klingon` is not one of English,",
            ),
            (format!(r#"{{{user}, "reasoning_language": 7}}"#), "reasoning_language: expected a text"),
            (format!(r#"{{{user}, "answer_language": "fr"}}"#), "answer_language: `fr`"),
            (format!(r#"{{{user}, "answer": {{"kind": "guess"}}}}"#), "answer.kind: `guess`"),
            (format!(r#"{{{user}, "answer": {{"kind": "number"}}}}"#), "answer.value: missing"),
            (
                format!(r#"{{{user}, "answer": {{"kind": "number", "value": "x"}}}}"#),
                "answer.value: expected a decimal",
            ),
            (
                format!(r#"{{{user}, "answer": {{"kind": "regex", "value": "("}}}}"#),
                "answer.value: regex parse error",
            ),
            (format!(r#"{{{user}, "answer": {{"kind": "choice", "value": "K"}}}}"#), "answer.value: `K`"),
            (
                format!(r#"{{{user}, "answer": {{"kind": "number", "value": "1", "tol": "1"}}}}"#),
                "answer.tol",
            ),
            (format!(r#"{{{user}, "answer": "7"}}"#), "answer: expected an object"),
            (format!(r#"{{{user}, "answer": "{{\"kind\": 1"}}"#), "answer: no JSON"),
            (format!(r#"{{{user}, "answer": "{{\"kind\": \"guess\"}}"}}"#), "answer.kind: `guess`"),
            (format!(r#"{{{user}, "tags": "x"}}"#), "tags: expected a list"),
            (format!(r#"{{{user}, "id": 7}}"#), "id: expected a text"),
        ] {
            let error = question(&json).unwrap_err();
            assert!(error.starts_with(expected) || error.contains(expected), "{json}: {error}");
        }
    }
}
