//! Stands between a worker and the server: cuts connections, or lets nothing through and says nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Open,
    /// Connections are closed, and none is taken.
    Cut,
    /// Connections stay, and nothing comes through.
    Stalled,
}

pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn new(server: &str) -> Proxy {
        let target: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared =
            Arc::new(Shared { mode: Mutex::new(Mode::Open), changed: Condvar::new(), streams: Mutex::default() });
        let all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *all.mode.lock().unwrap() == Mode::Cut {
                    let _ = stream.shutdown(Shutdown::Both);
                    continue;
                }
                let Ok(there) = TcpStream::connect(target) else { continue };
                let clones = [stream.try_clone(), there.try_clone()].map(Result::unwrap);
                all.streams.lock().unwrap().extend(clones);
                for (from, to) in [(stream.try_clone().unwrap(), there.try_clone().unwrap()), (there, stream)] {
                    let all = Arc::clone(&all);
                    std::thread::spawn(move || all.pass(from, to));
                }
            }
        });
        Proxy { url, shared }
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.changed.notify_all();
        if mode != Mode::Stalled {
            // What stalled is of no use when it comes late, as after a route that changed.
            for stream in self.shared.streams.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Shared {
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let mut mode = self.mode.lock().unwrap();
            while *mode == Mode::Stalled {
                mode = self.changed.wait(mode).unwrap();
            }
            drop(mode);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
