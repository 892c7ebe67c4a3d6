//! Answers to our challenges, right and wrong, late and repeated.

use super::*;

const REALM: &str = "sip.voice.voicedock.dev";
const LOGINS: [(u8, &str, &str); 3] =
    [(1, "alice", "secret"), (2, "bob \"the\" builder", "s\\e\"cret"), (3, "alice", "other")];
const START: Duration = Duration::from_secs(1_000);

fn challenger() -> Challenger {
    Challenger::new(REALM.into(), [7; 16])
}

/// The challenge with this algorithm.
fn challenge(challenger: &mut Challenger, algorithm: Algorithm, now: Duration) -> Challenge {
    let headers = challenger.challenges(false, now);
    let parsed = headers.iter().map(|(name, value)| {
        assert_eq!(*name, "WWW-Authenticate");
        Challenge::parse(value.as_bytes(), false).unwrap()
    });
    parsed.into_iter().find(|challenge| challenge.algorithm == algorithm).unwrap()
}

fn answer(challenge: &Challenge, username: &str, password: &str, count: u32) -> Vec<Vec<u8>> {
    let credentials = Credentials::new(username, password);
    vec![respond(challenge, &credentials, "INVITE", "sip:1@gw", count, "cn\"once").into_bytes()]
}

fn judge(challenger: &mut Challenger, headers: &[Vec<u8>], now: Duration) -> Judged<u8> {
    challenger.judge(headers, "INVITE", LOGINS, now)
}

const STALE: Judged<u8> = Judged::Unanswered { stale: true };
const UNANSWERED: Judged<u8> = Judged::Unanswered { stale: false };

#[test]
fn whoever_knows_the_password_is_let_in_with_either_algorithm() {
    let mut challenger = challenger();
    for algorithm in OFFERED {
        for (login, username, password) in LOGINS {
            let challenge = challenge(&mut challenger, algorithm, START);
            let headers = answer(&challenge, username, password, 1);
            assert_eq!(judge(&mut challenger, &headers, START), Judged::Proven(login), "{username}");
        }
    }
    let first = challenger.challenges(true, START).remove(0).1;
    assert!(first.contains("algorithm=SHA-256") && first.contains("stale=true"), "{first}");
}

#[test]
fn a_wrong_password_user_method_or_digest_is_refused() {
    let mut challenger = challenger();
    let challenge = challenge(&mut challenger, Algorithm::Sha256, START);
    for (username, password) in
        [("alice", "secre"), ("alice", ""), ("nobody", "secret"), ("nobody", ""), ("", "")]
    {
        let headers = answer(&challenge, username, password, 1);
        assert_eq!(judge(&mut challenger, &headers, START), Judged::Wrong, "{username}:{password}");
    }
    let right = answer(&challenge, "alice", "secret", 1);
    assert_eq!(challenger.judge(&right, "REGISTER", LOGINS, START), Judged::Wrong);
    assert_eq!(challenger.judge(&right, "INVITE", [(1, "alice", "changed")], START), Judged::Wrong);
    let text = String::from_utf8(right[0].clone()).unwrap();
    for (from, to) in
        [("alice", "bob"), ("sip:1@gw", "sip:2@gw"), ("nc=00000001", "nc=00000002"), ("once\"", "twice\"")]
    {
        let headers = [text.replacen(from, to, 1).into_bytes()];
        assert_eq!(judge(&mut challenger, &headers, START), Judged::Wrong, "{from} → {to}");
    }
    // None of this has used the nonce up.
    assert_eq!(judge(&mut challenger, &right, START), Judged::Proven(1));
}

#[test]
fn what_is_no_answer_to_our_challenge_is_challenged() {
    let mut challenger = challenger();
    let challenge = challenge(&mut challenger, Algorithm::Md5, START);
    let right = String::from_utf8(answer(&challenge, "alice", "secret", 1).remove(0)).unwrap();
    assert_eq!(judge(&mut challenger, &[], START), UNANSWERED);
    for (from, to) in [
        ("Digest", "Basic"),
        (REALM, "elsewhere"),
        ("algorithm=MD5", "algorithm=MD5-sess"),
        ("algorithm=MD5", "algorithm=SHA-512-256"),
        ("qop=auth,", ""),
        ("qop=auth", "qop=auth-int"),
        ("nc=00000001", "nc=1"),
        ("username=\"alice\", ", ""),
    ] {
        let headers = [right.replacen(from, to, 1).into_bytes()];
        assert_ne!(headers[0], right.as_bytes(), "{from}");
        assert_eq!(judge(&mut challenger, &headers, START), UNANSWERED, "{from} → {to}");
    }
    // Among the answers to others'.
    let headers = [
        b"Basic YTpi".to_vec(),
        right.replace(REALM, "elsewhere").into_bytes(),
        right.into_bytes(),
        vec![0xff],
    ];
    assert_eq!(judge(&mut challenger, &headers, START), Judged::Proven(1));
}

#[test]
fn an_answer_is_taken_once_and_a_nonce_serves_growing_counts() {
    let mut challenger = challenger();
    let challenge = challenge(&mut challenger, Algorithm::Sha256, START);
    for (count, expected) in
        [(1, Judged::Proven(1)), (1, STALE), (2, Judged::Proven(1)), (9, Judged::Proven(1)), (3, STALE)]
    {
        let headers = answer(&challenge, "alice", "secret", count);
        assert_eq!(judge(&mut challenger, &headers, START), expected, "{count}");
    }
}

#[test]
fn a_nonce_that_is_old_or_somebody_elses_is_stale() {
    let mut ours = challenger();
    let unused = challenge(&mut ours, Algorithm::Md5, START);
    assert_eq!(judge(&mut ours, &answer(&unused, "alice", "secret", 1), START + FIRST_USE), STALE);

    let used = challenge(&mut ours, Algorithm::Md5, START);
    assert_eq!(judge(&mut ours, &answer(&used, "alice", "secret", 1), START), Judged::Proven(1));
    let late = START + LIFETIME - Duration::from_millis(1);
    assert_eq!(judge(&mut ours, &answer(&used, "alice", "secret", 2), late), Judged::Proven(1));
    assert_eq!(judge(&mut ours, &answer(&used, "alice", "secret", 3), START + LIFETIME), STALE);

    let mut other = Challenger::new(REALM.into(), [8; 16]);
    let theirs = challenge(&mut other, Algorithm::Md5, START);
    assert_eq!(judge(&mut ours, &answer(&theirs, "alice", "secret", 1), START), STALE);
    let mut forged = challenge(&mut ours, Algorithm::Md5, START);
    forged.nonce.replace_range(0..1, "1");
    assert_eq!(judge(&mut ours, &answer(&forged, "alice", "secret", 1), START), STALE);
    forged.nonce = String::new();
    assert_eq!(judge(&mut ours, &answer(&forged, "alice", "secret", 1), START), STALE);
}

#[test]
fn what_is_forgotten_for_want_of_room_can_not_be_sent_again() {
    let mut challenger = challenger();
    let first = challenge(&mut challenger, Algorithm::Md5, START);
    let unused = challenge(&mut challenger, Algorithm::Md5, START);
    assert_eq!(judge(&mut challenger, &answer(&first, "alice", "secret", 1), START), Judged::Proven(1));
    for serial in 0..MOST_USED as u64 {
        challenger.remember(Nonce { made: millis(START), serial: 1_000 + serial }, 1, START);
    }
    assert_eq!(challenger.used.len(), MOST_USED);
    for count in [1, 2] {
        assert_eq!(judge(&mut challenger, &answer(&first, "alice", "secret", count), START), STALE);
    }
    assert_eq!(
        judge(&mut challenger, &answer(&unused, "alice", "secret", 1), START),
        Judged::Proven(1),
        "it is younger"
    );
    let later = START + LIFETIME;
    challenger.remember(Nonce { made: millis(later), serial: 1 }, 1, later);
    assert_eq!(challenger.used.len(), 1, "what has expired is let go");
}
