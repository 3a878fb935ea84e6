//! Sockets: accept, read the head of a request, hand it on, write the answer. No knowledge of hubs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::answer::answer;
use super::state::State;

/// Longest head of a request.
const MAX_HEAD_BYTES: u64 = 1 << 16;
/// A test that opens more than this is in a loop.
const MAX_CONNECTIONS: usize = 20_000;
const TIMEOUT: Duration = Duration::from_secs(20);

/// One port.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(state: Arc<Mutex<State>>, is_store: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback interface gives ports");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) || count.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&stream, &state, is_store));
            }
        });
        Self { port, stop, connections, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection, one request.
fn serve(stream: &TcpStream, state: &Mutex<State>, is_store: bool) {
    let _ = stream.set_read_timeout(Some(TIMEOUT));
    let _ = stream.set_write_timeout(Some(TIMEOUT));
    let mut head = String::new();
    let mut lines = BufReader::new(stream).take(MAX_HEAD_BYTES);
    while !head.ends_with("\r\n\r\n") {
        match lines.read_line(&mut head) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    // A client that went away is not a concern of the server's.
    let _ = answer(&head, state, is_store, &mut &*stream);
    let _ = stream.shutdown(Shutdown::Both);
}
