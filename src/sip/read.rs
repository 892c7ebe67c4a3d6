//! Reading what we need from SIP messages. Values are copied: a slice of a message would keep its whole datagram alive.

use std::net::IpAddr;

use bytes::Bytes;
use sipx_sip::headers::{
    Allow, CSeq, Contact, From as FromHeader, RecordRoute, Require, Supported, To, first_hop_end,
};
use sipx_sip::{Address, HeaderName, Headers, Method, Request, Response, Scheme, Uri, Via};

use super::event::{Body, Party, ReferTarget};
use super::replaces::{Replaces, Unreadable};

/// The topmost Via.
pub fn top_via(headers: &Headers) -> Option<Via> {
    let value = headers.value(&HeaderName::Via)?;
    Via::parse_one(value.get(..first_hop_end(&value))?).ok()
}

/// The `tag` parameter of From or To.
pub fn tag(headers: &Headers, name: &HeaderName) -> Option<Vec<u8>> {
    Address::parse(&headers.value(name)?, "tag").ok()?.tag().map(<[u8]>::to_vec)
}

/// The parts of a request that identify it: what dialogs and transactions are matched by.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Topmost Via.
    pub via: Via,
    /// CSeq number.
    pub cseq: u32,
    /// CSeq method.
    pub method: Method,
    /// Call-ID.
    pub call_id: Vec<u8>,
    /// From.
    pub from: Address,
    /// To.
    pub to: Address,
}

impl Identified {
    /// Reads a message's; `None` when one is missing or malformed (the front door lets no such message in).
    pub fn of(message: &Headers) -> Option<Self> {
        let cseq = message.typed::<CSeq>()?.ok()?;
        Some(Self {
            via: top_via(message)?,
            cseq: cseq.sequence,
            method: cseq.method,
            call_id: message.value(&HeaderName::CallId)?.to_vec(),
            from: message.typed::<FromHeader>()?.ok()?.0,
            to: message.typed::<To>()?.ok()?.0,
        })
    }

    /// The From tag; empty when there is none (RFC 2543 peers).
    pub fn sender_tag(&self) -> &[u8] {
        self.from.tag().unwrap_or_default()
    }
}

/// A header's value as text, unfolded; bytes that are no UTF-8 are replaced.
pub fn text(headers: &Headers, name: &HeaderName) -> Option<String> {
    Some(lossy(&headers.value(name)?))
}

fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// The body with its Content-Type, copied.
pub fn body(message: &Headers, bytes: &Bytes) -> Option<Body> {
    if bytes.is_empty() {
        return None;
    }
    let content_type = text(message, &HeaderName::ContentType).unwrap_or_else(|| "application/sdp".into());
    Some(Body { content_type, bytes: Bytes::copy_from_slice(bytes) })
}

/// A request's body.
pub fn request_body(request: &Request) -> Option<Body> {
    body(&request.headers, request.body())
}

/// A response's reason phrase, as text.
pub fn reason(response: &Response) -> String {
    lossy(&response.reason)
}

/// For how many seconds a 200 to our REGISTER holds the binding of `user` at `host` (with its port): what its Contact says,
/// else Expires. Bindings of others of the same address of record stand beside it.
pub fn granted(headers: &Headers, user: &str, host: &str) -> Option<u32> {
    let rows = headers.get_all(&HeaderName::Contact).map(|row| row.value().into_owned());
    let contacts: Vec<Address> =
        rows.flat_map(|row| Address::parse_list(&row, "Contact").unwrap_or_default()).collect();
    let is_ours = |contact: &&Address| user_of(&contact.uri) == user && host_of(&contact.uri) == host;
    let ours = contacts.iter().find(is_ours).or(contacts.first().filter(|_| contacts.len() == 1));
    let said = ours.and_then(|ours| seconds(ours.param("expires")?));
    said.or_else(|| seconds(&headers.value(&HeaderName::Expires)?))
}

/// Min-Expires of a 423.
pub fn min_expires(headers: &Headers) -> Option<u32> {
    seconds(&headers.value(&HeaderName::MinExpires)?)
}

/// Retry-After, without what may stand behind the number.
pub fn retry_after(headers: &Headers) -> Option<u32> {
    seconds(&headers.value(&HeaderName::RetryAfter)?)
}

fn seconds(value: &[u8]) -> Option<u32> {
    let digits = value.trim_ascii_start().split(|b| !b.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A response's body.
pub fn response_body(response: &Response) -> Option<Body> {
    body(&response.headers, response.body())
}

/// The URI of the first Contact, as text.
pub fn contact(headers: &Headers) -> Option<Vec<u8>> {
    let contact = headers.typed::<Contact>()?.ok()?;
    contact.uri.scheme().is_sip().then(|| contact.uri.to_bytes().to_vec())
}

/// The Record-Route values from top to bottom, each as `<uri>`.
pub fn record_route(headers: &Headers) -> Vec<Box<[u8]>> {
    let bracketed = |uri: &Uri| {
        let mut out = vec![b'<'];
        uri.write_to(&mut out);
        out.push(b'>');
        out.into_boxed_slice()
    };
    headers.typed_all::<RecordRoute>().filter_map(Result::ok).map(|route| bracketed(&route.uri)).collect()
}

/// The user part of To.
pub fn user_of_to(headers: &Headers) -> Option<String> {
    Some(user_of(&headers.typed::<To>()?.ok()?.0.uri))
}

/// From or To as the call machine sees it.
pub fn party(address: &Address) -> Party {
    let display = address.display_name.as_deref().map(lossy).unwrap_or_default();
    Party { display, user: user_of(&address.uri), host: host_of(&address.uri) }
}

/// The user part, unescaped and without its parameters; the subscriber number of a `tel` URI.
pub fn user_of(uri: &Uri) -> String {
    let user = match uri.tel_parts() {
        Some(tel) => tel.subscriber().to_vec(),
        None => uri.decoded_user().unwrap_or_default(),
    };
    // `;phone-context=…` and the like are parameters of the number (RFC 3261 §19.1.6).
    lossy(user.split(|&b| b == b';').next().unwrap_or_default())
}

fn host_of(uri: &Uri) -> String {
    match (uri.host(), uri.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_string(),
        (None, _) => String::new(),
    }
}

/// The IP address and port of a URI or Via host, when the host is an IP literal.
pub fn literal(uri: &Uri) -> Option<IpAddr> {
    match uri.host()? {
        sipx_sip::Host::Ip(ip) => Some(*ip),
        sipx_sip::Host::Name(_) => None,
    }
}

/// User part of the first P-Asserted-Identity.
pub fn asserted(headers: &Headers) -> Option<String> {
    let value = headers.value(&HeaderName::PAssertedIdentity)?;
    let first = Address::parse_list(&value, "P-Asserted-Identity").ok()?.into_iter().next()?;
    Some(user_of(&first.uri))
}

/// Whether `Privacy: id` was asked for.
pub fn privacy(headers: &Headers) -> bool {
    headers.get_all(&HeaderName::Privacy).any(|header| {
        header.value().split(|b| matches!(b, b';' | b',')).any(|v| v.trim_ascii().eq_ignore_ascii_case(b"id"))
    })
}

/// Whether a message has a header that the library has no name for.
pub fn has(headers: &Headers, name: &str) -> bool {
    headers.iter().any(|header| header.name().canonical().eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether the sender of a message knows an extension: its option tag is in Supported or Require (RFC 3261 §19.2).
pub fn supports(headers: &Headers, tag: &str) -> bool {
    headers.typed_all::<Supported>().flatten().any(|tags| tags.contains(tag)) || requires(headers, tag)
}

/// Whether the sender of a message insists on an extension.
pub fn requires(headers: &Headers, tag: &str) -> bool {
    headers.typed_all::<Require>().flatten().any(|tags| tags.contains(tag))
}

/// Whether the sender of a message says that it takes a method.
pub fn allows(headers: &Headers, method: &str) -> bool {
    headers.typed_all::<Allow>().flatten().any(|methods| methods.contains(method))
}

/// `X-…` and `User-to-User` headers, for the call machine to pass on.
pub fn passed_headers(headers: &Headers) -> Vec<(String, String)> {
    let wanted = |name: &[u8]| {
        name.get(..2).is_some_and(|x| x.eq_ignore_ascii_case(b"X-"))
            || name.eq_ignore_ascii_case(b"User-to-User")
    };
    headers
        .iter()
        .filter(|header| wanted(header.name().canonical()))
        .map(|header| (lossy(header.name().canonical()), lossy(&header.value())))
        .collect()
}

/// Replaces, if the message has one; an error if it has several or one that can't be read (RFC 3891 §3: 400).
pub fn replaces(headers: &Headers) -> Result<Option<Replaces>, Unreadable> {
    let mut rows = headers.get_all(&HeaderName::Replaces);
    match (rows.next(), rows.next()) {
        (None, _) => Ok(None),
        (Some(row), None) => Replaces::parse(&row.value()).map(Some).ok_or(Unreadable),
        (Some(_), Some(_)) => Err(Unreadable),
    }
}

/// The Refer-To of a REFER; `None` unless there is exactly one and it is a `sip`, `sips` or `tel` URI (RFC 3515 §2.4.2). Of the
/// headers that it embeds only Replaces counts; one that can't be read makes it none either.
pub fn refer_target(headers: &Headers) -> Option<ReferTarget> {
    let mut rows = headers.get_all(&HeaderName::ReferTo);
    let (Some(row), None) = (rows.next(), rows.next()) else { return None };
    let value = row.value();
    // A list would be two targets: the parser of one address stops at the comma with an error.
    let mut uri = Address::parse(&value, "Refer-To").ok()?.uri;
    let scheme = match uri.scheme() {
        Scheme::Sip => "sip",
        Scheme::Sips => "sips",
        Scheme::Tel => "tel",
        _ => return None,
    };
    let is_replaces = |name: &[u8]| name.eq_ignore_ascii_case(b"Replaces");
    let mut embedded = uri.headers().into_iter().flatten().filter(|header| is_replaces(header.name()));
    let replaces = match (embedded.next(), embedded.next()) {
        (None, _) => None,
        (Some(header), None) => Some(Replaces::parse(&unescape(header.value().unwrap_or_default()))?),
        (Some(_), Some(_)) => return None,
    };
    let names: Vec<String> = uri.headers().into_iter().flatten().map(|h| lossy(h.name())).collect();
    for name in names {
        uri.remove_header(&name);
    }
    Some(ReferTarget {
        scheme: scheme.into(),
        user: user_of(&uri),
        host: host_of(&uri),
        uri: lossy(&uri.to_bytes()),
        replaces,
    })
}

/// The status code of a `message/sipfrag` body that begins with a status line (RFC 3420).
pub fn status_of_fragment(body: &[u8]) -> Option<u16> {
    let line = body.split(|b| matches!(b, b'\r' | b'\n')).next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let version = words.next()?;
    let code = words.next()?;
    let is_status = version.eq_ignore_ascii_case("SIP/2.0") && code.len() == 3;
    code.parse().ok().filter(|code| is_status && (100..700).contains(code))
}

fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&b, tail)) = rest.split_first() {
        let escaped =
            tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escaped {
            Some(byte) if b == b'%' => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(b);
                rest = tail;
            }
        }
    }
    out
}
