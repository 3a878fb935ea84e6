//! Which program this is: version, commit, features, compiler. For reports of bugs.

/// Of the crate.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What was built; `unknown` outside a checkout.
pub(crate) const COMMIT: &str = env!("DESCANT_COMMIT");
/// What it was built for.
pub(crate) const TARGET: &str = env!("DESCANT_TARGET");
/// The compiler that built it.
pub(crate) const RUSTC: &str = env!("DESCANT_RUSTC");

/// The features that this build has, of those that change what it can do.
pub(crate) fn features() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("hub", cfg!(feature = "hub")),
        ("languages", cfg!(feature = "languages")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// What `--version --verbose` prints.
pub(crate) fn text() -> String {
    let features = features();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    format!(
        "descant {VERSION}\ncommit    {COMMIT}\nfeatures  {features}\ntarget    {TARGET}\ncompiler  {RUSTC}"
    )
}
