//! Conversations as typed values.
//!
//! A template takes any JSON and drops in silence what it does not know: a system message in the middle, a second tool
//! call, an unknown role. These types hold only what gpt-oss can be trained on; `message.rs` says which field does not
//! fit. What a message carries beyond (a name, an id) is kept and given to the template.

use crate::error::{Error, Result};
use crate::row::date::Date;
use crate::row::input::TemplateInput;
use serde_json::{Map, Value as Json, json};
use std::fmt;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The system message; in data sets it holds the developer's instructions.
    System,
    /// The developer's instructions and tools.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool, answering a call.
    Tool,
}

impl Role {
    /// The role's name in data sets.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The function's name, without the namespace.
    pub name: String,
    /// The arguments as JSON; shown to the model as Python writes them.
    pub arguments: Json,
    /// What the header calls the arguments; the template says `json`.
    pub content_type: Option<String>,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said: a text, and for a tool any JSON. Absent only beside a tool call.
    pub content: Option<Json>,
    /// The assistant's reasoning; `Some("")` renders an empty analysis.
    pub thinking: Option<String>,
    /// The call that an assistant message ends with.
    pub tool_call: Option<ToolCall>,
    /// What its tokens count for in the loss, over what the run says; 0 is not trained. 1 when absent.
    pub weight: Option<f32>,
    /// The same for its reasoning alone; as the message when absent.
    pub thinking_weight: Option<f32>,
    /// Further keys, given to the template as they are.
    pub extra: Map<String, Json>,
}

impl Message {
    fn empty(role: Role) -> Self {
        Self {
            role,
            content: None,
            thinking: None,
            tool_call: None,
            weight: None,
            thinking_weight: None,
            extra: Map::new(),
        }
    }

    /// A message with text.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { content: Some(Json::String(content.into())), ..Self::empty(role) }
    }

    /// An assistant message with its reasoning.
    pub fn assistant(thinking: Option<String>, content: impl Into<String>) -> Self {
        Self { thinking, ..Self::text(Role::Assistant, content) }
    }

    /// An assistant message that calls a tool.
    pub fn call(thinking: Option<String>, name: impl Into<String>, arguments: Json) -> Self {
        let tool_call = Some(ToolCall { name: name.into(), arguments, content_type: None });
        Self { thinking, tool_call, ..Self::empty(Role::Assistant) }
    }

    /// A tool's answer.
    pub fn tool(content: Json) -> Self {
        Self { content: Some(content), ..Self::empty(Role::Tool) }
    }

    /// Whether any of its tokens may be trained.
    pub fn counts(&self) -> bool {
        let thinking = self.thinking.as_ref().and(self.thinking_weight);
        self.weight.unwrap_or(1.0) > 0.0 || thinking.unwrap_or(0.0) > 0.0
    }

    pub(crate) fn to_json(&self) -> Json {
        let mut map = Map::new();
        map.insert("role".into(), self.role.as_str().into());
        if let Some(content) = &self.content {
            map.insert("content".into(), content.clone());
        }
        if let Some(thinking) = &self.thinking {
            map.insert("thinking".into(), thinking.as_str().into());
        }
        if let Some(call) = &self.tool_call {
            let mut function = json!({"name": call.name, "arguments": call.arguments});
            if let Some(content_type) = &call.content_type {
                function["content_type"] = content_type.as_str().into();
            }
            map.insert("tool_calls".into(), json!([{"type": "function", "function": function}]));
        }
        for (key, value) in &self.extra {
            map.entry(key.as_str()).or_insert_with(|| value.clone());
        }
        Json::Object(map)
    }
}

/// A conversation with what the template needs in addition to the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// The messages; a system or developer message can only be the first.
    pub messages: Vec<Message>,
    /// The tools in the form of OpenAI's API; empty for none.
    pub tools: Vec<Json>,
    /// Further variables of the template, such as `reasoning_effort`, `model_identity`, `builtin_tools`.
    pub template_kwargs: Map<String, Json>,
    /// The day of this conversation; the run's when absent.
    pub date: Option<Date>,
}

impl Conversation {
    /// A conversation of messages alone.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// Sets the reasoning effort.
    #[must_use]
    pub fn with_effort(mut self, effort: &str) -> Self {
        self.template_kwargs.insert("reasoning_effort".into(), effort.into());
        self
    }

    /// Checks what the template would lose or misplace in silence.
    ///
    /// # Errors
    /// [`Error::Field`] for no message at all, and for a system or developer message that is not the first.
    pub fn checked(self) -> Result<Self> {
        if self.messages.is_empty() {
            return Err(Error::field("messages", "empty"));
        }
        let stray =
            self.messages.iter().skip(1).position(|m| matches!(m.role, Role::System | Role::Developer));
        if let Some(at) = stray {
            let role = self.messages[at + 1].role;
            let reason = format!("a {role} message that is not the first would be dropped by the template");
            return Err(Error::field(format!("messages[{}].role", at + 1), reason));
        }
        Ok(self)
    }

    /// The reasoning effort, where the row states one.
    pub fn effort(&self) -> Option<&str> {
        self.template_kwargs.get("reasoning_effort").and_then(Json::as_str)
    }

    /// The same conversation up to a message.
    #[must_use]
    pub fn prefix(&self, messages: usize) -> Self {
        Self { messages: self.messages.iter().take(messages).cloned().collect(), ..self.clone_head() }
    }

    fn clone_head(&self) -> Self {
        Self {
            messages: Vec::new(),
            tools: self.tools.clone(),
            template_kwargs: self.template_kwargs.clone(),
            date: self.date,
        }
    }

    /// What the template is given.
    pub fn to_input(&self, add_generation_prompt: bool) -> TemplateInput {
        self.input(self.messages.len(), add_generation_prompt)
    }

    /// What the template is given of the first messages.
    pub(crate) fn input(&self, messages: usize, add_generation_prompt: bool) -> TemplateInput {
        TemplateInput {
            messages: self.messages.iter().take(messages).map(Message::to_json).collect(),
            tools: if self.tools.is_empty() { Json::Null } else { Json::Array(self.tools.clone()) },
            kwargs: self.template_kwargs.clone(),
            add_generation_prompt,
        }
    }
}
