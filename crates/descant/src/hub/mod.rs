//! Repositories of a hub in place of paths: `hf://OWNER/NAME` becomes a directory of the cache, pinned to its commit.
//!
//! The environment that Hugging Face's own tools know is read here, once, and passed on. Whether a command may fetch
//! is the command's to say; whether this build can, the feature `hub`'s.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use descant_hub::{Cache, Error, Reference, Snapshot};

use crate::failure::Hinted;
use crate::settings::Resolved;
use crate::talk::Talk;

mod environment;
#[cfg(feature = "hub")]
mod fetch;
mod hint;

use environment::Environment;
pub(crate) use hint::hinted;

/// Where repositories are looked for, and whether they may be fetched.
pub(crate) struct Places {
    environment: Environment,
    fetch: bool,
    talk: Talk,
}

impl Places {
    /// `fetch` is whether the command may go to the network when the cache lacks something.
    pub(crate) fn new(fetch: bool, offline: bool, talk: Talk) -> Self {
        let environment = Environment::read();
        let fetch = fetch && !offline && !environment.offline;
        Self { environment, fetch, talk }
    }

    /// The cache.
    pub(crate) fn cache(&self) -> Result<Cache> {
        let missing = || anyhow!("no home folder and no HF_HUB_CACHE, so there is no cache");
        Ok(Cache::new(self.environment.cache.clone().ok_or_else(missing)?))
    }

    /// Whether this command may go to the network.
    pub(crate) fn may_fetch(&self) -> bool {
        self.fetch
    }

    /// Whether a token is set, and the hub's address; `None` in a build that cannot fetch and so looks for neither.
    #[cfg_attr(not(feature = "hub"), expect(clippy::unused_self, reason = "there is nothing to look at"))]
    pub(crate) fn token_and_endpoint(&self) -> Option<(bool, &str)> {
        #[cfg(feature = "hub")]
        let found =
            Some((self.environment.config.token.is_some(), self.environment.config.endpoint.as_str()));
        #[cfg(not(feature = "hub"))]
        let found = None;
        found
    }

    /// How long the hub takes to answer; `None` where it may not be asked.
    pub(crate) fn reach(&self) -> Option<Result<std::time::Duration>> {
        if !self.fetch {
            return None;
        }
        #[cfg(feature = "hub")]
        let reached = Some(self.cache().and_then(|cache| fetch::reach(&self.environment, cache)));
        #[cfg(not(feature = "hub"))]
        let reached = None;
        reached
    }

    /// Where a repository is: in the cache, or there once it is fetched.
    pub(crate) fn find(&self, text: &str) -> Result<Snapshot> {
        let reference = Reference::parse(text).map_err(hinted)?;
        match self.cache()?.find(&reference) {
            Err(Error::NotCached { .. }) if self.fetch => self.fetch(&reference, false),
            found => found.map_err(hinted),
        }
    }

    /// Brings a repository into the cache.
    #[cfg(feature = "hub")]
    pub(crate) fn fetch(&self, reference: &Reference, thoroughly: bool) -> Result<Snapshot> {
        fetch::fetch(&self.environment, self.cache()?, reference, thoroughly, self.talk)
    }

    #[cfg(not(feature = "hub"))]
    pub(crate) fn fetch(&self, reference: &Reference, _thoroughly: bool) -> Result<Snapshot> {
        let error = anyhow!("{reference} is not in the cache, and this build cannot fetch");
        let hint = format!("cargo xtask download {reference}");
        self.talk.detail("built without the feature `hub`");
        Err(Hinted::new(error, hint).into())
    }

    /// Refuses a file or folder that is not there, before anything is fetched for nothing.
    pub(crate) fn refuse_missing(&self, resolved: &mut Resolved) -> Result<()> {
        let places = resolved.settings.places();
        let fetches = self.fetch && places.iter().any(|path| reference(path).is_some());
        let here = |path: &Path| path.as_os_str().is_empty() || reference(path).is_some() || path.exists();
        match places.iter().find(|path| fetches && !here(path)) {
            Some(path) => {
                let error = anyhow!("{} does not exist", path.display());
                let hint = "nothing was fetched; paths are relative to the current folder".to_owned();
                Err(Hinted::new(error, hint).into())
            }
            None => Ok(()),
        }
    }

    /// Puts directories and files of the cache in place of every repository that the settings name. Their text then
    /// names the commit.
    pub(crate) fn settle(&self, resolved: &mut Resolved) -> Result<()> {
        Self::settle_with(resolved, |text| self.find(text).map(Some))
    }

    /// The same for what is here; a repository that the cache lacks keeps its name.
    pub(crate) fn settle_what_is_here(&self, resolved: &mut Resolved) -> Result<()> {
        Self::settle_with(resolved, |text| {
            let asked = Reference::parse(text).map_err(hinted)?;
            match self.cache()?.find(&asked) {
                Err(Error::NotCached { .. }) => Ok(None),
                found => found.map(Some).map_err(hinted),
            }
        })
    }

    fn settle_with(resolved: &mut Resolved, find: impl Fn(&str) -> Result<Option<Snapshot>>) -> Result<()> {
        let settings = &mut resolved.settings;
        let mut local = Vec::new();
        for path in settings.places() {
            let snapshot = reference(path).map(&find).transpose()?.flatten();
            if let Some(snapshot) = &snapshot {
                *path = snapshot.reference.to_string().into();
            }
            local.push(snapshot.map_or_else(|| path.clone(), |snapshot| snapshot.path));
        }
        resolved.write_down()?;
        let settings = &mut resolved.settings;
        for (place, path) in settings.places().into_iter().zip(local) {
            *place = path;
        }
        Ok(())
    }

    /// A model directory or a file of rows, given as a path or as a repository.
    pub(crate) fn directory(&self, given: &Path) -> Result<PathBuf> {
        match reference(given) {
            Some(text) => Ok(self.find(text)?.path),
            None => Ok(given.to_owned()),
        }
    }
}

/// The text of a path that means a repository.
fn reference(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| Reference::is_meant(text))
}

/// The repository that a path means, where it means one that is not here.
pub(crate) fn missing(path: &Path) -> Result<Option<Reference>> {
    reference(path).map(|text| Reference::parse(text).map_err(hinted)).transpose()
}
