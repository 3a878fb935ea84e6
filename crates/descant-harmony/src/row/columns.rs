//! Which columns of a file are read.

/// Columns that one form uses and the others do not; and `id`, by which rows are printed and which changes no token.
pub(crate) const OF_FORMS: [&str; 11] = [
    "id",
    "messages",
    "conversations",
    "conversation",
    "instruction",
    "input",
    "output",
    "history",
    "prompt",
    "completion",
    "text",
];
/// Columns that every form uses.
const OF_ALL: [&str; 22] = [
    "label",
    "thinking",
    "reasoning",
    "reasoning_content",
    "weight",
    "train",
    "loss",
    "system",
    "system_prompt",
    "tools",
    "functions",
    "template_kwargs",
    "chat_template_kwargs",
    "reasoning_effort",
    "model_identity",
    "builtin_tools",
    "current_date",
    "reasoning_language",
    "images",
    "videos",
    "audios",
    "add_generation_prompt",
];
/// Every column that any form uses.
pub(crate) const COLUMNS: [&str; OF_FORMS.len() + OF_ALL.len()] = {
    let mut all = [""; OF_FORMS.len() + OF_ALL.len()];
    let (forms, rest) = all.split_at_mut(OF_FORMS.len());
    forms.copy_from_slice(&OF_FORMS);
    rest.copy_from_slice(&OF_ALL);
    all
};
