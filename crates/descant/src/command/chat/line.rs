//! What comes from the keyboard or a pipe.

/// What was typed.
pub(super) enum Line {
    /// A message or a command.
    Text(String),
    /// Nothing, or something that was given up.
    Nothing,
    /// The end.
    End,
}
