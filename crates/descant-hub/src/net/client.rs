//! One request: redirects by hand, the token only at the hub's own origin, answers sorted.
//!
//! Redirects are followed here and not by the HTTP library, because who gets the token is our promise: scheme, host
//! and port must be the endpoint's. A redirect from `https` to `http` is not followed.

use std::io::Read;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::config::HubConfig;
use crate::error::{Error, Refusal, Result};

/// Redirects in a row that are followed.
const MAX_REDIRECTS: usize = 6;
/// Longest file of certificates.
const MAX_PEM_BYTES: u64 = 16 << 20;
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const USER_AGENT: &str = concat!("descant/", env!("CARGO_PKG_VERSION"));

/// Sends requests to one hub.
pub(crate) struct Client {
    agent: Agent,
    /// Without a slash at its end.
    base: String,
    origin: Origin,
    authorization: Option<HeaderValue>,
}

/// Scheme, host and port: who may see the token.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

/// An answer with its body still to come.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) url: String,
    body: Body,
}

impl Answer {
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn into_reader(self) -> impl Read {
        self.body.into_reader()
    }
}

/// A request that did not give what was wanted.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether another try can help.
    pub(crate) again: bool,
    /// How long the server asks to wait.
    pub(crate) wish: Option<Duration>,
}

impl Failure {
    pub(crate) fn again(error: Error) -> Self {
        Self { error, again: true, wish: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: false, wish: None }
    }
}

impl From<descant_files::Error> for Failure {
    fn from(error: descant_files::Error) -> Self {
        Error::Files(error).into()
    }
}

impl Client {
    pub(crate) fn new(config: &HubConfig) -> Result<Self> {
        let setting = |what, reason: &str| Error::Setting { what, reason: reason.to_owned() };
        let base = config.endpoint.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| setting("the hub's address", "it is not a URL"))?;
        let origin = Origin::of(&uri)
            .ok_or_else(|| setting("the hub's address", "expected https://HOST without credentials"))?;
        let authorization = match &config.token {
            None => None,
            Some(token) => {
                let value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
                let mut value = value.map_err(|_| setting("the token", "it contains invalid characters"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let patience = config.patience;
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.certificates {
            tls = tls.root_certs(certificates(path)?);
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .proxy(proxy(config)?)
            .tls_config(tls.build())
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.answer))
            .timeout_per_read(Some(patience.stall))
            .build()
            .new_agent();
        Ok(Self { agent, base, origin, authorization })
    }

    /// Whether a token goes with requests to the hub.
    fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// Gets `path` of the hub, from byte `from` on, wherever that leads.
    pub(crate) fn get(&self, path: &str, from: u64) -> Result<Answer, Failure> {
        self.send(path, from, false)
    }

    /// Asks for the headers of `path` and stays at the hub: its own headers describe the file, not those of the host
    /// that stores it.
    pub(crate) fn head(&self, path: &str) -> Result<Answer, Failure> {
        self.send(path, 0, true)
    }

    fn send(&self, path: &str, from: u64, head: bool) -> Result<Answer, Failure> {
        let mut uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| Error::Transport { url: shown(path), reason: "this is not a URL".into() })?;
        for _ in 0..=MAX_REDIRECTS {
            let url = shown(&uri.to_string());
            let at_home = Origin::of(&uri).is_some_and(|origin| origin == self.origin);
            let mut request = if head { self.agent.head(uri.clone()) } else { self.agent.get(uri.clone()) };
            if let Some(authorization) = self.authorization.as_ref().filter(|_| at_home) {
                request = request.header(AUTHORIZATION, authorization);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| Failure::again(transport(&url, &error)))?;
            let (parts, body) = response.into_parts();
            let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, url, body };
            if !is_redirect(parts.status) {
                return Ok(answer);
            }
            let next = self.next(&uri, &answer)?;
            if head && Origin::of(&next).is_none_or(|origin| origin != self.origin) {
                return Ok(answer);
            }
            uri = next;
        }
        Err(Error::Redirect { url: shown(path), reason: "after redirect, without end" }.into())
    }

    /// Where a redirect leads.
    fn next(&self, from: &Uri, answer: &Answer) -> Result<Uri> {
        let bad = |reason| Error::Redirect { url: answer.url.clone(), reason };
        let location = answer.header(&LOCATION).ok_or(bad("to nowhere"))?;
        let (scheme, authority) = (from.scheme_str().unwrap_or("https"), from.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        let absolute = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else {
            location.to_owned()
        };
        let uri: Uri = absolute.parse().map_err(|_| bad("to something that is not a URL"))?;
        let origin = Origin::of(&uri).ok_or(bad("to something that is not a web address"))?;
        if self.origin.secure && !origin.secure {
            return Err(bad("from https to http"));
        }
        Ok(uri)
    }

    /// The failure that a status means; `None` for those that mean success.
    pub(crate) fn refusal(&self, repo: &str, answer: &Answer) -> Option<Failure> {
        let refused = |reason| Some(Error::Refused { repo: repo.to_owned(), reason }.into());
        let code = answer.header(&ERROR_CODE);
        let status = Error::Status { url: answer.url.clone(), status: answer.status };
        match (answer.status, code) {
            (200 | 206, _) => None,
            (401 | 403, Some("GatedRepo")) if self.has_token() => refused(Refusal::Gated),
            (401, _) => refused(if self.has_token() { Refusal::BadToken } else { Refusal::NeedsToken }),
            (403, _) => refused(Refusal::Forbidden),
            (404, Some("RevisionNotFound")) => refused(Refusal::NoRevision),
            (404, Some("EntryNotFound")) => refused(Refusal::NoFile),
            (404, _) => refused(Refusal::NoRepo),
            (408 | 425 | 429 | 500..=599, _) => {
                let wish = answer.header(&RETRY_AFTER).and_then(|text| text.trim().parse().ok());
                Some(Failure { error: status, again: true, wish: wish.map(Duration::from_secs) })
            }
            _ => Some(status.into()),
        }
    }
}

impl Origin {
    /// `None` for anything that is not `http(s)://HOST[:PORT]` without credentials.
    fn of(uri: &Uri) -> Option<Self> {
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Self { secure, host: authority.host().to_ascii_lowercase(), port })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// An URL as people may see it: no query, where signatures are, and no credentials.
pub(crate) fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            path.map_or(format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
        }
        None => plain.to_owned(),
    }
}

fn transport(url: &str, error: &ureq::Error) -> Error {
    let reason = match error {
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::HostNotFound => "the host is not known".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        // Some texts hold the URL, and an URL may hold a signature.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the request cannot be made".to_owned(),
        other => other.to_string(),
    };
    Error::Transport { url: url.to_owned(), reason }
}

fn proxy(config: &HubConfig) -> Result<Option<Proxy>> {
    let Some(address) = &config.proxy else { return Ok(None) };
    // The library's own error may hold the address, and that a password.
    let bad = |_| Error::Setting { what: "the proxy", reason: "expected http://HOST:PORT".into() };
    let plain = Proxy::new(address.reveal()).map_err(bad)?;
    let mut builder = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(name) = plain.username() {
        builder = builder.username(name);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    let builder = config.no_proxy.iter().fold(builder, |builder, host| builder.no_proxy(host));
    builder.build().map(Some).map_err(bad)
}

fn certificates(path: &std::path::Path) -> Result<RootCerts> {
    let pem = descant_files::read_bounded(path, MAX_PEM_BYTES)?;
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => {
                let reason = format!("{} is not PEM", path.display());
                return Err(Error::Setting { what: "the certificates", reason });
            }
        }
    }
    if found.is_empty() {
        let reason = format!("{} contains none", path.display());
        return Err(Error::Setting { what: "the certificates", reason });
    }
    Ok(RootCerts::new_with_certs(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_shown_without_what_could_be_secret() {
        for (url, text) in [
            ("https://u:p@h.example/a/b?Signature=x#y", "https://h.example/a/b"),
            ("https://h.example", "https://h.example"),
            ("/api/models/a/b?blobs=true", "/api/models/a/b"),
        ] {
            assert_eq!(shown(url), text);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(of("https://H.example/x"), of("https://h.example:443/y?z"));
        for other in
            ["http://h.example", "https://h.example:444", "https://h.example.evil", "https://x.h.example"]
        {
            assert_ne!(of(other), of("https://h.example"), "{other}");
        }
        for none in ["ftp://h.example", "/x", "https://u:p@h.example"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_without_showing_it() {
        let canary = "hf_canary";
        let token = |text: &str| HubConfig { token: Secret::new(text), ..HubConfig::default() };
        let endpoint = |text: &str| HubConfig { endpoint: text.into(), ..HubConfig::default() };
        let proxy = |text: &str| HubConfig { proxy: Secret::new(text), ..HubConfig::default() };
        for config in [
            token("hf_canary\nx"),
            endpoint("https://u:hf_canary@h.example"),
            endpoint("hf_canary"),
            endpoint("ftp://hf_canary"),
            proxy("gopher://u:hf_canary@h"),
        ] {
            let Err(error) = Client::new(&config) else { panic!("{config:?}") };
            assert!(!format!("{error} {error:?}").contains(canary), "{error}");
        }
        let config = token(canary);
        assert!(Client::new(&config).is_ok());
        assert!(!format!("{config:?}").contains(canary));
    }

    use super::super::config::Secret;
}
