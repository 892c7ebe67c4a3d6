//! What is added to the conversation, over a socket that may be lost with what was sent last.
//!
//! Each item has an id of its own and is sent again over the next socket unless the server has shown it: the server takes an id
//! once. The other way round nothing is repeated: a tool that the model called meanwhile is not told of. So a note is added
//! first over each further socket. Where the server puts it shows what was added last before it: the lost call, most likely,
//! for a model that waits for a result says nothing. And it has the model call again what got lost otherwise.

use serde_json::Value;

use crate::agent::openai::events::{self, Speaker};

/// How our ids begin.
const OURS: &str = "vd-";
/// What a model is to know whose tools were out of reach.
const NOTE: &str = "The line to your tools was interrupted for a moment and is back. If you called a tool meanwhile and still have \
                    no result when the caller speaks again, call it once more. Don't mention this.";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Items {
    last: u32,
    /// Those that the server has not shown, in order.
    unshown: Vec<(String, Value)>,
    /// The note that was sent over this socket and has not been shown.
    note: Option<String>,
}

impl Items {
    /// Gives an event that adds an item an id, and remembers it until it is shown. To be sent if the socket is open.
    pub(super) fn add(&mut self, event: Value) -> Value {
        let (id, event) = self.named(event);
        self.unshown.push((id, event.clone()));
        event
    }

    /// What is to be sent first over a socket that was opened; `again`: there was one before.
    pub(super) fn opened(&mut self, again: bool) -> Vec<Value> {
        let note = again.then(|| {
            let (id, event) = self.named(events::turn(Speaker::System, NOTE));
            self.note = Some(id);
            event
        });
        note.into_iter().chain(self.unshown.iter().map(|(_, event)| event.clone())).collect()
    }

    /// The server shows an item and which one is before it. Returns the one that was added last while nobody heard of it, if that
    /// is known now.
    pub(super) fn shown(&mut self, id: &str, before: Option<String>) -> Option<String> {
        self.unshown.retain(|(unshown, _)| unshown != id);
        self.note.take_if(|note| note == id)?;
        before.filter(|before| !before.starts_with(OURS))
    }

    fn named(&mut self, mut event: Value) -> (String, Value) {
        self.last += 1;
        let id = format!("{OURS}{}", self.last);
        event["item"]["id"] = id.clone().into();
        (id, event)
    }
}
