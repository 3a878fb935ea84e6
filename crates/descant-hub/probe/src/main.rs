//! hf-hub 1.0.0's `download_file_stream` against the loopback hub: prints what it does for each promise of descant-hub.
//!
//! Run it again when a newer hf-hub is considered: `cargo run --release` in this folder. It decides nothing; the README
//! of descant-hub has the conclusions.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use descant_testkit::loopback::{Fault, LoopbackHub};
use futures::StreamExt as _;
use hf_hub::HFClient;

const MODEL: &str = "models/openai/gpt-oss-20b";
const SHARD: &str = "model.safetensors";
const SIZE: u64 = 100_000;
/// Where a resumed download continues.
const FROM: u64 = 50_000;
const TOKEN: &str = "hf_token_of_the_probe";

/// What came of one stream.
struct Streamed {
    /// The announced length, or why there is no stream.
    length: Result<Option<u64>, String>,
    bytes: Vec<u8>,
    /// The error that ended it.
    end: Option<String>,
}

#[tokio::main]
async fn main() {
    println!("## one file, no faults: requests");
    let hub = hub();
    stream(&client(&hub.endpoint(), None), SHARD, None).await;
    requests(&hub);
    faults().await;
    tokens().await;
    redirects().await;
    println!("## the list that `info` asks for");
    hub.forget();
    let info =
        client(&hub.endpoint(), None).model("openai", "gpt-oss-20b").info().revision("main").send().await;
    println!("answered: {}", info.is_ok());
    requests(&hub);
    println!("## names: what is asked for");
    hub.forget();
    for name in ["../../other", "a/../b", "/etc/passwd", "a\\b"] {
        stream(&client(&hub.endpoint(), None), name, None).await;
    }
    requests(&hub);
    for at_store in [false, true] {
        println!(
            "## X-Xet-Hash on {}: requests",
            if at_store { "redirect and final answer" } else { "the redirect only" }
        );
        xet(at_store).await;
    }
}

fn hub() -> LoopbackHub {
    let hub = LoopbackHub::start();
    hub.publish(MODEL, &[("config.json", b"{}".to_vec()), (SHARD, content())]);
    hub
}

/// Bytes that no two ranges share.
fn content() -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 16) as u8
    };
    std::iter::repeat_with(next).take(SIZE as usize).collect()
}

/// A client with our own timeouts, no proxy and no retries of its own.
fn client(endpoint: &str, token: Option<&str>) -> HFClient {
    let http = reqwest::Client::builder().no_proxy().read_timeout(Duration::from_millis(300)).build();
    let builder =
        HFClient::builder().endpoint(endpoint).client(http.expect("a client")).retry_max_attempts(0);
    token.into_iter().fold(builder, |builder, token| builder.token(token)).build().expect("a hub")
}

async fn stream(client: &HFClient, name: &str, from: Option<u64>) -> Streamed {
    let repository = client.model("openai", "gpt-oss-20b");
    let asked = repository.download_file_stream().filename(name).revision("main");
    let (length, mut chunks) = match asked.maybe_range(from.map(|from| from..SIZE)).send().await {
        Ok(begun) => begun,
        Err(error) => return Streamed { length: Err(error.to_string()), bytes: Vec::new(), end: None },
    };
    let (mut bytes, mut end) = (Vec::new(), None);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => end = Some(error.to_string()),
        }
    }
    Streamed { length: Ok(length), bytes, end }
}

fn requests(hub: &LoopbackHub) {
    for seen in hub.seen() {
        let place = if seen.at_store { "store" } else { "hub" };
        let target = seen.target.split('?').next().unwrap_or_default();
        println!("{} {place} {target} range {:?} token {:?}", seen.method, seen.range, seen.authorization);
    }
}

/// A resumed download that meets each fault, once at the HEAD that hf-hub sends first and once at the GET.
async fn faults() {
    println!("## a stream from byte {FROM} of {SIZE} that meets a fault");
    let all = [
        Fault::IgnoreRange,
        Fault::OtherRange,
        Fault::Cut(10),
        Fault::Flip(60_000),
        Fault::Short(7),
        Fault::Long(9),
        Fault::AnnounceMore(5),
        Fault::LoginPage,
        Fault::Pointer,
        Fault::Stall(100, Duration::from_secs(3)),
        Fault::Status(503, Some(1)),
        Fault::Status(429, Some(1)),
    ];
    for fault in all {
        for at_get in [false, true] {
            let hub = hub();
            if at_get {
                // A fault without effect for the HEAD.
                hub.fail(&hub.target_of(MODEL, SHARD), 1, Fault::Flip(usize::MAX));
            }
            hub.fail(&hub.target_of(MODEL, SHARD), 1, fault.clone());
            let begun = Instant::now();
            let got = stream(&client(&hub.endpoint(), None), SHARD, Some(FROM)).await;
            let right = got.bytes == content()[FROM as usize..];
            let (met, took) = (if at_get { "GET" } else { "HEAD" }, begun.elapsed().as_millis());
            println!(
                "{fault:?} at {met}: length {:?}, {} bytes, right {right}, ended by {:?}, {took} ms",
                got.length,
                got.bytes.len(),
                got.end
            );
        }
    }
}

async fn tokens() {
    for (given, variable) in [(None, Some(TOKEN)), (Some(""), Some(TOKEN)), (Some(TOKEN), None)] {
        println!("## token of the builder {given:?}, HF_TOKEN {variable:?}: requests");
        // SAFETY: no other thread reads or changes the environment here.
        unsafe {
            match variable {
                Some(value) => std::env::set_var("HF_TOKEN", value),
                None => std::env::remove_var("HF_TOKEN"),
            }
        }
        let hub = hub();
        stream(&client(&hub.endpoint(), given), SHARD, None).await;
        requests(&hub);
    }
}

async fn redirects() {
    let (hub, elsewhere) = (hub(), LoopbackHub::start());
    for to in [
        format!("{}/x", elsewhere.endpoint()),
        "file:///etc/passwd".into(),
        "http://u:p@127.0.0.1:1/x".into(),
    ] {
        hub.fail("/config.json", 1, Fault::Redirect(to.clone()));
        let got = stream(&client(&hub.endpoint(), Some(TOKEN)), "config.json", None).await;
        println!("## a redirect to {to}: {:?}", got.length);
    }
    println!("token at the other host: {}", elsewhere.seen().iter().any(|seen| seen.authorization.is_some()));
    hub.fail(&hub.target_of(MODEL, SHARD), 2, Fault::Status(500, None));
    let got = stream(&client(&hub.endpoint(), Some(TOKEN)), SHARD, None).await;
    println!(
        "signature in the text of an error: {}",
        got.length.is_err_and(|error| error.contains("Signature"))
    );
}

/// A hub that names a Xet hash; prints what it is asked for.
async fn xet(at_store: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (mut stream, mut head) = (stream, [0; 4096]);
            let read = stream.read(&mut head).unwrap_or(0);
            let line = String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned();
            println!("{line}");
            let hash = format!("X-Xet-Hash: {}\r\n", "0".repeat(64));
            let answer = if line.contains("/resolve/") {
                format!(
                    "302 X\r\n{hash}X-Linked-Size: 10\r\nLocation: http://{address}/blob\r\nContent-Length: 0\r\n\r\n"
                )
            } else if line.contains("/blob") {
                let body = if line.starts_with("HEAD") { "" } else { "0123456789" };
                format!("200 X\r\n{}Content-Length: 10\r\n\r\n{body}", if at_store { &hash } else { "" })
            } else {
                "404 X\r\nContent-Length: 0\r\n\r\n".to_owned()
            };
            let _ = write!(stream, "HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        }
    });
    stream(&client(&format!("http://{address}"), None), SHARD, None).await;
}
