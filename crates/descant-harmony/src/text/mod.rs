//! From a conversation to text: the model's own chat template, run as Python would run it.

pub(crate) mod escape;
pub(crate) mod guards;
pub(crate) mod locate;
mod python;
mod python_text;
pub(crate) mod template;
