//! A whole gateway but for its sockets and its clock: what peers send, in any order and in any form, with time passing and
//! commands in between. See `voicedock_fuzz::gateway` for what must hold.

#![no_main]

use libfuzzer_sys::fuzz_target;
use voicedock_fuzz::script;

fuzz_target!(|data: &[u8]| script::play(data));
