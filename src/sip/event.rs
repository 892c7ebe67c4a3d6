//! What happens on a leg, and what can be asked of it: the words that [`super::endpoint`] and the call machine share.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::replaces::Replaces;
use super::session::SessionPolicy;

/// One leg: a dialog (or one in the making) with one peer. Unique within a process for its whole life; 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

/// A request inside a leg that waits for our final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A transport that the gateway listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// RFC 3261 §18, datagrams.
    Udp,
    /// RFC 3261 §18, streams.
    Tcp,
    /// RFC 3261 §26.2, streams over TLS; to or from whom.
    Tls(TlsPeer),
}

/// What the two ends of a TLS connection have proven to each other. Connections with different ones are never mistaken for
/// each other, though they lead to the same address: one may carry another tenant's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsPeer(pub u32);

impl TlsPeer {
    /// Whoever connected to a listener: our certificate was shown, and nothing asked for.
    pub const ANYBODY: Self = Self(0);
}

impl Transport {
    /// As Via writes it (RFC 3261 §20.42).
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls(_) => "TLS",
        }
    }

    /// The URI parameter that says it, with its semicolon; nothing for UDP, which is what no parameter means.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "",
            Self::Tcp => ";transport=tcp",
            Self::Tls(_) => ";transport=tls",
        }
    }

    /// Whether what is sent arrives, so that nothing is repeated.
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }
}

/// Where bytes come from or go to. Over TCP the driver keeps one connection a peer address and opens it when needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Transport.
    pub transport: Transport,
    /// The peer's address as seen on the wire.
    pub peer: SocketAddr,
}

/// A body with its Content-Type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// `application/sdp` for offers and answers.
    pub content_type: String,
    /// The bytes, untouched.
    pub bytes: Bytes,
}

impl Body {
    /// An SDP body.
    pub fn sdp(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: "application/sdp".into(), bytes: bytes.into() }
    }
}

/// A caller or callee as From and To name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Display name without quotes; empty when there is none.
    pub display: String,
    /// User part of the URI, unescaped; the number, as the peer writes it. Empty when there is none (`sip:host`).
    pub user: String,
    /// Host part of the URI with port if given.
    pub host: String,
}

/// Whether provisional responses to an INVITE are acknowledged (RFC 3262).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reliability {
    /// The peer knows nothing of that.
    #[default]
    Unknown,
    /// They may be: those are that describe our side.
    Known,
    /// All of them must be.
    Demanded,
}

impl Reliability {
    /// Whether a response is to be acknowledged; `described`: it has a description. Such a one is the answer to the INVITE's
    /// offer, and no other can follow before the call is answered.
    pub fn wants(self, described: bool) -> bool {
        match self {
            Self::Unknown => false,
            Self::Known => described,
            Self::Demanded => true,
        }
    }
}

/// A call that comes in: an INVITE outside of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingCall {
    /// Who sent it.
    pub flow: Flow,
    /// User part of the Request-URI, unescaped, without parameters: what was dialled.
    pub called: String,
    /// From.
    pub from: Party,
    /// To.
    pub to: Party,
    /// User part of P-Asserted-Identity when the peer sent one.
    pub asserted: Option<String>,
    /// `Privacy: id` (RFC 3323, 3325) was asked for.
    pub privacy: bool,
    /// Max-Forwards as received (70 when absent).
    pub max_forwards: u8,
    /// The peer's Call-ID, for logs.
    pub call_id: String,
    /// Values of Authorization, as they are. `Debug` shows them: no log does.
    pub authorization: Vec<Vec<u8>>,
    /// Values of Identity (RFC 8224), as they are.
    pub identity: Vec<String>,
    /// Date, by which they were signed.
    pub date: Option<String>,
    /// Every `X-…` and `User-to-User` header.
    pub headers: Vec<(String, String)>,
    /// Whether its provisional responses are acknowledged.
    pub reliability: Reliability,
    /// The leg, answered and not over, in whose place it comes (RFC 3891). Whether it may is for others to say.
    pub replaces: Option<LegId>,
    /// The offer; absent when the answerer must offer (RFC 3264, offerless INVITE).
    pub offer: Option<Body>,
}

/// How a leg ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The peer sent BYE; its Reason header if it had one.
    Bye(Option<String>),
    /// The peer cancelled its INVITE before an answer.
    Cancel,
    /// The peer never acknowledged our 2xx, or a request in the dialog met 481, 408 or silence.
    Timeout,
    /// Nobody refreshed the session in time (RFC 4028 §10).
    Expired,
    /// We ended it.
    Us,
}

impl EndedBy {
    /// Whether the peer went without a word.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Timeout | Self::Expired)
    }
}

/// Why an INVITE of ours found no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// A final response of 300 to 699.
    Response,
    /// No response at all (Timer B).
    Timeout,
    /// The transport failed before any response.
    Transport,
    /// We cancelled it.
    Cancelled,
    /// The challenge was not for our realm, or our credentials were refused.
    Unauthorized,
    /// It was not sent: the trunk carries as much as it may.
    Limit,
}

/// Where a REFER wants the caller to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferTarget {
    /// `sip`, `sips` or `tel`.
    pub scheme: String,
    /// User part, or the number of a `tel` URI, unescaped, visual separators kept.
    pub user: String,
    /// Host with port if given; empty for `tel`.
    pub host: String,
    /// The URI as received, without embedded headers, for logs and direct dialling.
    pub uri: String,
    /// The dialog that the call to it is to replace, where the URI embeds that. No other embedded header is taken over.
    pub replaces: Option<Replaces>,
}

/// Something that happened on a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegEvent {
    /// A new call; 100 has been sent. Answer with `progress`, `answer` or `refuse`.
    Incoming(Box<IncomingCall>),
    /// A 101–199 response to our INVITE.
    Progress {
        /// Status code.
        code: u16,
        /// Early media.
        body: Option<Body>,
    },
    /// The first 2xx to our INVITE. It has been acknowledged, unless our INVITE had no offer: then `ack` must follow.
    Answered {
        /// The answer (or the offer, when our INVITE had none).
        body: Option<Body>,
    },
    /// Our INVITE found no answer. The leg is over: no further event follows. When we hung up it comes at once; CANCEL, and
    /// ACK and BYE for an answer that crosses it, follow without further notice.
    Refused {
        /// Status code; 408 for a time-out, 503 for a transport error, 487 when we cancelled.
        code: u16,
        /// Reason phrase.
        reason: String,
        /// Who or what refused.
        by: RefusedBy,
    },
    /// The peer acknowledged our 2xx to its INVITE or re-INVITE.
    Acked {
        /// The answer, when our 2xx carried an offer.
        body: Option<Body>,
    },
    /// The peer wants to change the session (re-INVITE or UPDATE): answer with `respond`.
    Reoffer {
        /// To be answered.
        request: RequestId,
        /// The new offer; absent when we must offer in the 2xx (then `Acked` brings the answer), or for a refresh.
        body: Option<Body>,
    },
    /// The peer took a re-INVITE back before it was answered (CANCEL): it needs no answer any more, and the old session stands.
    Withdrawn {
        /// The request of the `Reoffer`.
        request: RequestId,
    },
    /// Our re-INVITE was accepted (and acknowledged, unless it had no offer).
    ReofferAccepted {
        /// The answer.
        body: Option<Body>,
    },
    /// A re-INVITE by which we refreshed the session was answered with this description: perhaps another than before.
    Refreshed {
        /// The answer.
        body: Body,
    },
    /// Our re-INVITE was refused for good; the old session stands. After 491 it was sent again as RFC 3261 §14.1 says, unless it
    /// was somebody else's (`pass_on`).
    ReofferRefused {
        /// Status code; 408 for a time-out.
        code: u16,
        /// Seconds after which it may be tried again, where the peer says so (Retry-After).
        retry_after: Option<u32>,
    },
    /// The peer asks for a transfer: answer with `respond` (202 or a refusal), then tell the outcome with `notify`.
    Refer {
        /// To be answered.
        request: RequestId,
        /// Where to.
        target: Box<ReferTarget>,
        /// The REFER's own Referred-By (RFC 3892).
        referred_by: Option<String>,
    },
    /// INFO, MESSAGE or another request with a body that is relayed: answer with `respond`.
    Request {
        /// To be answered.
        request: RequestId,
        /// Its method.
        method: String,
        /// Its body.
        body: Option<Body>,
    },
    /// A response to a request that was sent with `request`.
    Response {
        /// What `request` returned.
        request: RequestId,
        /// Status code; 408 for a time-out.
        code: u16,
    },
    /// What the peer says about our `refer_away` (a NOTIFY, which has been answered, or a response that refuses to say).
    /// None follows one with a final code or with `ended`.
    Referred {
        /// What `refer_away` returned.
        request: RequestId,
        /// Status of the call that the peer makes for it; absent when it says none.
        code: Option<u16>,
        /// It won't say more.
        ended: bool,
    },
    /// The leg is over. No further event follows, and every command on it is ignored.
    Ended(EndedBy),
}

/// An INVITE that is to be sent.
#[derive(Clone, Debug)]
pub struct OutgoingInvite {
    /// Where it is sent.
    pub flow: Flow,
    /// Request-URI; also the To URI.
    pub uri: String,
    /// The value of Route, if it goes through a proxy; the requests of its dialog go where the answer says.
    pub route: Option<String>,
    /// From: display, user and host. An empty host stands for our own address.
    pub from: Party,
    /// Headers that are added as they are (validated by the compiler: no line breaks).
    pub headers: Vec<(String, String)>,
    /// Max-Forwards; one less than the incoming call's.
    pub max_forwards: u8,
    /// The offer; without one the peer offers and `ack` brings our answer.
    pub offer: Option<Body>,
    /// For a challenge (401, 407).
    pub credentials: Option<Credentials>,
    /// A peer that has not said anything at all for so long counts as gone, before Timer B (RFC 3261 §17.1.1.2) says so:
    /// another one waits. What it says later is cancelled, or acknowledged and ended.
    pub patience: Option<Duration>,
    /// How long the session lasts without a refresh.
    pub session: SessionPolicy,
}

/// A REFER that sends a peer elsewhere.
#[derive(Clone, Debug)]
pub struct OutgoingRefer {
    /// The URI of Refer-To, without angle brackets.
    pub target: String,
    /// Referred-By (RFC 3892).
    pub referred_by: String,
    /// Headers that are added as they are.
    pub headers: Vec<(String, String)>,
    /// For a challenge (401, 407).
    pub credentials: Option<Credentials>,
}

/// User name and password for digest authentication. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// The only realm that is answered; any when absent.
    pub realm: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}
