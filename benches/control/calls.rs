//! Calls as short as they can be: an agent that refuses every call, and a caller that is refused.
//!
//! The caller's number, which the gateway passes on, tells which INVITE at the agent belongs to which call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a call may take: more counts as not answered.
const ANSWER: Duration = Duration::from_secs(4);
/// Pause before an INVITE is repeated that nobody has answered (RFC 3261, timer A).
const REPEAT: Duration = Duration::from_millis(500);

/// The agent of all assistants.
#[derive(Clone)]
pub struct Agent {
    port: u16,
    /// The assistant that was asked for, by the caller's number.
    asked: Arc<Mutex<HashMap<String, String>>>,
    _task: Arc<JoinSet<()>>,
}

impl Agent {
    /// On a free port of this machine.
    pub async fn listen() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("there is a free port");
        let port = socket.local_addr().expect("a socket that is bound has an address").port();
        let asked = Arc::<Mutex<HashMap<String, String>>>::default();
        let (mut task, noted) = (JoinSet::new(), asked.clone());
        task.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if !text.starts_with("INVITE ") {
                    continue;
                }
                if let (Some(caller), Some(assistant)) =
                    (caller(&text), header(&text, "X-VoiceDock-Assistant"))
                {
                    let name = assistant.rsplit('/').next().unwrap_or_default().to_owned();
                    noted.lock().unwrap_or_else(PoisonError::into_inner).insert(caller.to_owned(), name);
                }
                let _ = socket.send_to(busy(&text).as_bytes(), from).await;
            }
        });
        Self { port, asked, _task: Arc::new(task) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Somebody who calls.
#[derive(Clone)]
pub struct Caller {
    socket: Arc<UdpSocket>,
    agent: Agent,
    serial: Arc<AtomicU64>,
    /// The last final responses, by Call-ID.
    answers: watch::Receiver<HashMap<String, String>>,
    _task: Arc<JoinSet<()>>,
}

/// How a call went.
#[derive(Debug)]
pub struct Outcome {
    /// The final status; `None`: no answer.
    pub status: Option<u16>,
    /// The assistant as which the agent was called.
    pub assistant: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Caller {
    /// From a free port of this machine.
    pub async fn new(agent: Agent) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("there is a free port"));
        let (tell, answers) = watch::channel(HashMap::new());
        let (mut task, receiver) = (JoinSet::new(), socket.clone());
        task.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok(length) = receiver.recv(&mut buffer).await else { continue };
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let is_final = text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1");
                if let Some(id) = header(&text, "Call-ID").filter(|_| is_final) {
                    tell.send_modify(|answers| drop(answers.insert(id.to_owned(), text.clone())));
                }
            }
        });
        Self { socket, agent, serial: Arc::default(), answers, _task: Arc::new(task) }
    }

    /// Calls a number at a gateway and waits to be refused.
    pub async fn call(&self, gateway: SocketAddr, number: &str) -> Outcome {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let caller = format!("+3160{serial:07}");
        let own = self.socket.local_addr().expect("a socket that is bound has an address");
        let id = format!("call-{serial}@{own}");
        let uri = format!("sip:{number}@{gateway}");
        let request = |method: &str, to: &str| {
            format!(
                "{method} {uri} SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {own};branch=z9hG4bK-{serial}\r\n\
                 From: <sip:{caller}@{own}>;tag={serial}\r\n\
                 To: {to}\r\n\
                 Call-ID: {id}\r\n\
                 CSeq: 1 {method}\r\n\
                 Contact: <sip:caller@{own}>\r\n\
                 Max-Forwards: 70\r\n\
                 Content-Length: 0\r\n\r\n"
            )
        };
        let invite = request("INVITE", &format!("<{uri}>"));
        let start = Instant::now();
        let mut answers = self.answers.clone();
        let answer = async {
            loop {
                let _ = self.socket.send_to(invite.as_bytes(), gateway).await;
                let answered = answers.wait_for(|answers| answers.contains_key(&id));
                if let Ok(Ok(answers)) = tokio::time::timeout(REPEAT, answered).await {
                    return answers[&id].clone();
                }
            }
        };
        let answer = tokio::time::timeout(ANSWER, answer).await.ok();
        let took = start.elapsed();
        if let Some(to) = answer.as_deref().and_then(|answer| header(answer, "To")) {
            let _ = self.socket.send_to(request("ACK", to).as_bytes(), gateway).await;
        }
        let status = answer.as_deref().and_then(|answer| answer.get(8..11)?.parse().ok());
        let assistant = self.agent.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&caller);
        Outcome { status, assistant, took }
    }
}

/// Value of a header, by its name in its long form.
fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// User part of From.
fn caller(message: &str) -> Option<&str> {
    header(message, "From")?.split_once("sip:")?.1.split_once('@').map(|(user, _)| user)
}

/// 486 to an INVITE.
fn busy(invite: &str) -> String {
    let mut response = String::from("SIP/2.0 486 Busy Here\r\n");
    for line in invite.lines().take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().trim();
        if ["Via", "From", "Call-ID", "CSeq"].iter().any(|kept| name.eq_ignore_ascii_case(kept)) {
            response.push_str(line);
            response.push_str("\r\n");
        } else if name.eq_ignore_ascii_case("To") {
            response.push_str(line);
            response.push_str(";tag=agent\r\n");
        }
    }
    response.push_str("Content-Length: 0\r\n\r\n");
    response
}
