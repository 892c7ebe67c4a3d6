//! What an INVITE to a human says of the call: whose number it shows, who must not see it, and how it came there.
//!
//! A trunk is a trusted peer (RFC 3325 §5): it is told the caller's number, and with it whether the caller wants it kept
//! back. It is also told that the call was meant for another number at first (Diversion, RFC 5806, and History-Info, RFC
//! 7044: trunks read the one or the other), which is what a network asks for before it lets a foreign caller id pass. A URI
//! that is dialled directly is nobody in particular: it is told nothing but From.

use std::time::Duration;

use crate::routing::decide::TransferRoute;
use crate::routing::table::{CallerIdEntry, CallerIdHeaderEntry};
use crate::sip::event::Party;
use crate::sip::wire::escaped_user;

use super::input::Dial;
use super::machine::Call;

/// A host that is silent for so long counts as gone where there is another: four copies of the INVITE over UDP.
const PATIENCE: Duration = Duration::from_secs(4);

/// Why a call doesn't go to the number that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retarget {
    /// The assistant can't be reached.
    Fallback,
    /// A transfer; whether a REFER asked for it.
    Transfer {
        /// It did.
        by_refer: bool,
    },
}

impl Call {
    /// The INVITE to a human.
    pub(super) fn dial_for(&self, route: &TransferRoute, why: Retarget) -> Dial {
        let (from, private) = self.shown(route);
        let mut headers = route.headers.clone();
        if route.trunk.is_some() {
            let asserted = if private { self.caller_number() } else { &from.user };
            headers.extend(asserted_identity(route.caller_id_header, asserted, private));
            headers.extend(self.way_here(route, why));
        }
        if private {
            headers.push(("Privacy".into(), "id".into()));
        }
        Dial {
            target: route.target.clone(),
            from,
            headers,
            max_forwards: self.max_forwards(),
            offer: None,
            credential: route.credential.clone().map(|id| (id, route.realm.clone())),
            line: route.trunk.clone().map(|trunk| (trunk, route.limits)),
            patience: (!route.failover.elsewhere.is_empty()).then_some(PATIENCE),
            session: route.session_timer.into(),
            assistant: None,
        }
    }

    /// From by the destination's mode, and whether it hides a caller who wants to be hidden.
    fn shown(&self, route: &TransferRoute) -> (Party, bool) {
        let number = match &route.caller_id {
            CallerIdEntry::Preserve => {
                let private = self.start.incoming.privacy || is_anonymous(self.caller_number());
                if private {
                    let nobody = Party {
                        display: "Anonymous".into(),
                        user: "anonymous".into(),
                        host: "anonymous.invalid".into(),
                    };
                    return (nobody, true);
                }
                let display = self.start.incoming.from.display.clone();
                return (Party { display, user: self.caller_number().into(), host: String::new() }, false);
            }
            CallerIdEntry::PhoneNumber => self.start.answer.number(),
            CallerIdEntry::Fixed(number) => number,
        };
        (Party { display: String::new(), user: number.to_string(), host: String::new() }, false)
    }

    /// The number that was dialled first, and why the call has left it.
    fn way_here(&self, route: &TransferRoute, why: Retarget) -> Vec<(String, String)> {
        let first = format!("<sip:{}@{{host}}>", self.start.answer.number());
        let reason = match why {
            Retarget::Fallback => "unavailable",
            Retarget::Transfer { .. } => "deflection",
        };
        // `mp`: whom it goes to is somebody else, by a mapping of ours (RFC 7044 §5).
        let history = format!("{first};index=1, <{}>;index=1.1;mp=1", route.target.uri);
        let mut headers = vec![
            ("Diversion".to_owned(), format!("{first};reason={reason};counter=1")),
            ("History-Info".to_owned(), history),
        ];
        if why == (Retarget::Transfer { by_refer: true }) {
            // On behalf of the number: the agent's own address is nobody's business (RFC 3892).
            headers.push(("Referred-By".to_owned(), first));
        }
        headers
    }
}

/// The header in which a trunk reads the caller's number. A caller who has none is not vouched for.
fn asserted_identity(header: CallerIdHeaderEntry, number: &str, private: bool) -> Option<(String, String)> {
    if number.is_empty() || is_anonymous(number) {
        return None;
    }
    let uri = format!("<sip:{}@{{host}}>", escaped_user(number));
    match header {
        CallerIdHeaderEntry::PAI => Some(("P-Asserted-Identity".into(), uri)),
        CallerIdHeaderEntry::RPID => {
            let privacy = if private { "full" } else { "off" };
            Some(("Remote-Party-ID".into(), format!("{uri};party=calling;privacy={privacy};screen=yes")))
        }
        CallerIdHeaderEntry::From => None,
    }
}

fn is_anonymous(user: &str) -> bool {
    user.eq_ignore_ascii_case("anonymous")
}
