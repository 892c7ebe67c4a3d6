//! Bytes that are parsed: whatever they are, they are a message that is written as it came, or an error. Streams read the
//! same, whatever their pieces.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sipx_sip::{Limits, parse_datagram, validate};
use voicedock::sip::event::{Flow, Transport};
use voicedock::sip::front_door::{Stream, Verdict};
use voicedock::sip::read;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = parse_datagram(Bytes::copy_from_slice(data), &Limits::datagram()) {
        let _ = validate(&message);
        read_all(message.headers());
        let written = message.to_bytes();
        let again = parse_datagram(written.clone(), &Limits::datagram())
            .expect("what was read is written so that it is read");
        assert_eq!(again.to_bytes(), written);
    }
    let ((whole, broken), (pieces, also_broken)) = (messages(data, data.len().max(1)), messages(data, 7));
    assert_eq!(broken, also_broken);
    // What stands before the break is lost with it when both come in one piece.
    assert!(broken || whole == pieces, "the pieces of a stream make no difference");
});

fn read_all(headers: &sipx_sip::Headers) {
    let _ = read::Identified::of(headers).map(|id| (read::party(&id.from), read::party(&id.to)));
    let _ = (read::contact(headers), read::record_route(headers), read::refer_target(headers));
    let _ = (read::asserted(headers), read::privacy(headers), read::passed_headers(headers));
    let _ = (read::granted(headers, "a", "b"), read::min_expires(headers), read::retry_after(headers));
}

/// What comes out of a stream in pieces of `size`, and whether it broke.
fn messages(data: &[u8], size: usize) -> (Vec<Bytes>, bool) {
    let flow = Flow { transport: Transport::Tcp, peer: ([192, 0, 2, 1], 5060).into() };
    let mut stream = Stream::new(Limits::stream());
    let mut read = Vec::new();
    for piece in data.chunks(size) {
        match stream.push(piece, flow) {
            // Pings are answered at the end of a piece: how many depends on the pieces.
            Ok(verdicts) => read.extend(verdicts.into_iter().filter_map(|verdict| match verdict {
                Verdict::Message(message) => Some(message.to_bytes()),
                Verdict::Reply { bytes, .. } if bytes.len() > 2 => Some(bytes),
                Verdict::Reply { .. } | Verdict::Drop(_) | Verdict::Nothing => None,
            })),
            Err(_) => return (read, true),
        }
    }
    (read, false)
}
