//! Call ids: which pod and which of its shards has a call can be read from the id.
//!
//! `call_<instance 8 hex>_<shard 2 hex><serial 16 hex>`, lower case. A request about a call can therefore be asked at any
//! pod of a gateway: the pod that has the call is found without a directory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifies one gateway process among those of its SipGateway: in call ids, and in Contacts of SIP messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u32);

impl Instance {
    /// The instance of the pod with this uid. A container that restarts in its pod keeps it.
    pub fn of_pod(uid: &str) -> Self {
        let digest = Sha256::digest(uid.as_bytes());
        Self(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Instance {
    type Err = NotACallId;
    fn from_str(text: &str) -> Result<Self, NotACallId> {
        let value = hexadecimal(text, 8).ok_or(NotACallId)?;
        u32::try_from(value).map(Self).map_err(|_| NotACallId)
    }
}

/// Identifies one call among all calls of a gateway, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CallId {
    /// The process that has the call.
    pub instance: Instance,
    /// The shard of that process.
    pub shard: u8,
    /// Tells the calls of a shard apart. Drawn at random, so that ids neither repeat after a restart nor can be guessed.
    pub serial: u64,
}

/// A text is not a call id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a call id: they look like call_0badcafe_030123456789abcdef")]
pub struct NotACallId;

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call_{}_{:02x}{:016x}", self.instance, self.shard, self.serial)
    }
}

impl FromStr for CallId {
    type Err = NotACallId;
    fn from_str(text: &str) -> Result<Self, NotACallId> {
        let (instance, rest) =
            text.strip_prefix("call_").and_then(|rest| rest.split_once('_')).ok_or(NotACallId)?;
        let (shard, serial) = rest.split_at_checked(2).ok_or(NotACallId)?;
        Ok(Self {
            instance: instance.parse()?,
            shard: hexadecimal(shard, 2).and_then(|value| u8::try_from(value).ok()).ok_or(NotACallId)?,
            serial: hexadecimal(serial, 16).ok_or(NotACallId)?,
        })
    }
}

impl From<CallId> for String {
    fn from(id: CallId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for CallId {
    type Error = NotACallId;
    fn try_from(text: String) -> Result<Self, NotACallId> {
        text.parse()
    }
}

/// Exactly `digits` lower-case hexadecimal digits: an id has one spelling only.
pub(super) fn hexadecimal(text: &str, digits: usize) -> Option<u64> {
    let spelled = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if spelled { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_which_pod_and_shard_has_the_call() {
        let id = CallId { instance: Instance(0x0bad_cafe), shard: 3, serial: 0x0123_4567_89ab_cdef };
        assert_eq!(id.to_string(), "call_0badcafe_030123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn an_id_has_one_spelling_only() {
        for wrong in [
            "",
            "call_",
            "call_0badcafe_",
            "call_0badcafe_030123456789abcde",
            "call_0badcafe_030123456789abcdef0",
            "call_0BADCAFE_030123456789abcdef",
            "call_+badcafe_030123456789abcdef",
            "0badcafe_030123456789abcdef",
            "call_0badcafe_é30123456789abcde",
        ] {
            assert_eq!(wrong.parse::<CallId>(), Err(NotACallId), "{wrong}");
        }
    }

    #[test]
    fn a_restarted_container_keeps_its_instance() {
        let uid = "6f0c1f0e-5f9e-4f3a-9d0e-0f6d3f0f7c11";
        assert_eq!(Instance::of_pod(uid), Instance::of_pod(uid));
        assert_ne!(Instance::of_pod(uid), Instance::of_pod("another"));
    }
}
