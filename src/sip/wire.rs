//! Writing SIP messages: start line, headers, body, in the order given. Promises that no value breaks out of its line.

use bytes::Bytes;

use super::event::Body;

/// Methods that we answer, for `Allow`.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, NOTIFY, REFER";

/// Option tags that we understand, for `Supported`: acknowledged provisional responses (RFC 3262), REFER without a
/// subscription (RFC 4488), session timers (RFC 4028).
pub const SUPPORTED: &str = "100rel, norefersub, replaces, timer";

/// Those of a request whose provisional responses we don't acknowledge: they could hold an offer, or there are none.
pub const SUPPORTED_UNACKNOWLEDGED: &str = "norefersub, replaces, timer";

/// Whether we understand an option tag.
pub fn understands(tag: &[u8]) -> bool {
    SUPPORTED.split(", ").any(|known| tag.eq_ignore_ascii_case(known.as_bytes()))
}

/// A message in the making.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Starts a request.
    pub fn request(method: &str, uri: &[u8]) -> Self {
        let mut w = Self(Vec::with_capacity(768));
        w.clean(method.as_bytes());
        w.0.push(b' ');
        w.clean(uri);
        w.0.extend_from_slice(b" SIP/2.0\r\n");
        w
    }

    /// Starts a response.
    pub fn response(code: u16, reason: &str) -> Self {
        let mut w = Self(Vec::with_capacity(768));
        w.0.extend_from_slice(format!("SIP/2.0 {code} ").as_bytes());
        w.clean(reason.as_bytes());
        w.0.extend_from_slice(b"\r\n");
        w
    }

    /// Adds a header. Line breaks and NUL in the value become spaces: whatever a peer or a person wrote, it stays one line.
    pub fn line(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.clean(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.clean(value.as_ref());
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// Adds whole header lines, each with its CRLF, that another [`Writer`] or [`Lines`] wrote.
    pub fn lines(&mut self, lines: &Lines) -> &mut Self {
        self.0.extend_from_slice(&lines.0);
        self
    }

    /// Adds Content-Type, Content-Length and the body.
    pub fn finish(mut self, body: Option<&Body>) -> Bytes {
        if let Some(body) = body {
            self.line("Content-Type", &body.content_type);
            self.0.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.bytes.len()).as_bytes());
            self.0.extend_from_slice(&body.bytes);
        } else {
            self.0.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        }
        Bytes::from(self.0)
    }

    fn clean(&mut self, value: &[u8]) {
        self.0.extend(value.iter().map(|&b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { b }));
    }
}

/// Header lines that are kept to be written later, such as those which a response copies from its request.
#[derive(Clone, Debug, Default)]
pub struct Lines(Box<[u8]>);

impl Lines {
    /// Collects `(name, value)` pairs.
    pub fn collect<'a, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        let mut w = Writer(Vec::new());
        for (name, value) in pairs {
            w.line(name, value);
        }
        Self(w.0.into_boxed_slice())
    }
}

/// A display name as a quoted string (RFC 3261 §25.1), or nothing.
pub fn quoted(display: &str) -> String {
    if display.is_empty() {
        return String::new();
    }
    let mut out = String::with_capacity(display.len() + 3);
    out.push('"');
    for c in display.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out.push_str("\" ");
    out
}

/// A user part with everything escaped that the grammar of `user` (RFC 3261 §25.1) does not allow as it is.
pub fn escaped_user(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    for &b in user.as_bytes() {
        if b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// The usual reason phrase of a status code.
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        469 => "Bad Info Package",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => match code / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirected",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}
