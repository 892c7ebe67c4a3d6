//! How webhooks are signed, as the product does: `X-Webhook-Timestamp` in seconds, `X-Webhook-Signature: sha256=` and the
//! HMAC-SHA256 of `<timestamp>.<body>` in hexadecimal.

use ring::hmac;

/// The value of `X-Webhook-Signature`.
pub(super) fn signature(secret: &str, timestamp: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut signing = hmac::Context::with_key(&key);
    signing.update(format!("{timestamp}.").as_bytes());
    signing.update(body);
    let hex: String = signing.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_signed_as_the_product_signs_its_webhooks() {
        // echo -n '1767603600.{"type":"say"}' | openssl dgst -sha256 -hmac hunter2
        let expected = "sha256=50c3cdd3752ff055e8055cf986655af474f01da15b4df817dfcdc302513a2c52";
        assert_eq!(signature("hunter2", 1_767_603_600, br#"{"type":"say"}"#), expected);
    }
}
