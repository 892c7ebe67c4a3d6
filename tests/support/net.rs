//! What tests and benches need of the network to talk with processes that they start.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An address of this machine that nothing listens on, neither over UDP nor over TCP.
pub fn free_address() -> SocketAddr {
    loop {
        let stream = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = stream.local_addr().expect("a socket that is bound has an address");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Status and body of a GET with a bearer key; `None` while nobody listens.
pub async fn get(address: SocketAddr, path: &str, key: &str) -> Option<(u16, String)> {
    let mut connection = TcpStream::connect(address).await.ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
