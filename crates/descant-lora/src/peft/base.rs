//! What an adapter's files say of the model that it belongs to.

/// The model that an adapter belongs to, as its files call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base<'a> {
    /// Its name on a hub, or another name that is not a path of this machine.
    pub name: &'a str,
    /// The commit of it that the adapter was trained on.
    pub revision: Option<&'a str>,
    /// In which numbers training multiplied with its experts, where that was not bf16: said in the card and in the
    /// tensors' file.
    pub experts: Option<&'a str>,
}

impl<'a> From<&'a str> for Base<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, revision: None, experts: None }
    }
}
