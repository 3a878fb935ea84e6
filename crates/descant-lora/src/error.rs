//! What can be wrong with adapters.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of adapters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings are out of range or name no site.
    #[error("{0}")]
    Config(String),
    /// The device failed before the adapters could be read from it.
    #[error(transparent)]
    Device(#[from] descant_kernels::DeviceError),
    /// An adapter's folder could not be read or written.
    #[error(transparent)]
    Peft(#[from] crate::peft::Error),
}
