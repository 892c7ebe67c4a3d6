use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(300);

fn autoscaling(min: i32, max: i32, target: i32) -> Autoscaling {
    Autoscaling { min, max, target_calls_per_pod: target }
}

fn load(pod: &str, ready: bool, calls: Option<u32>) -> Load {
    Load { pod: pod.to_owned(), ready, calls, deletion_cost: None }
}

/// Ready pods with these calls.
fn loads(calls: &[u32]) -> Vec<Load> {
    let named = calls.iter().enumerate();
    named.map(|(place, calls)| load(&format!("gw-{place}"), true, Some(*calls))).collect()
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn from_two_pods_it_goes_up_at_once_to_what_the_calls_take() {
    for (calls, expected) in
        [(&[0, 0][..], 2), (&[10, 10], 2), (&[10, 11], 3), (&[40, 0], 4), (&[49, 1], 5), (&[500, 500], 5)]
    {
        let now = Instant::now();
        let mut scaler = Scaler::new(WINDOW, 2, now);
        scaler.decide(&autoscaling(2, 5, 10), &loads(calls), now);
        assert_eq!(scaler.current(), expected, "for {calls:?} at 10 a pod, 2 to 5 pods");
    }
}

#[test]
fn it_goes_down_after_a_window_to_the_most_that_was_needed_in_it() {
    let (start, wanted) = (Instant::now(), autoscaling(1, 10, 10));
    let mut scaler = Scaler::new(WINDOW, 1, start);
    let mut at = |seconds: u64, calls: &[u32]| {
        scaler.decide(&wanted, &loads(calls), after(start, seconds));
        (scaler.current(), scaler.wake().map(|wake| wake.duration_since(start).as_secs()))
    };
    assert_eq!(at(10, &[50]), (5, None));
    // Fifty calls until now: the five pods are needed until 1,000 + 300.
    assert_eq!(at(1000, &[10, 10, 10, 0, 0]), (5, Some(1300)));
    assert_eq!(at(1100, &[1, 0, 0, 0, 0]), (5, Some(1300)));
    assert_eq!(at(1299, &[1, 0, 0, 0, 0]), (5, Some(1300)));
    assert_eq!(at(1300, &[1, 0, 0, 0, 0]), (3, Some(1400)), "three were needed until 1,100");
    assert_eq!(at(1400, &[1, 0, 0]), (1, None));
}

#[test]
fn calls_that_come_back_within_the_window_find_their_pods_still_there() {
    let (start, wanted) = (Instant::now(), autoscaling(1, 10, 10));
    let mut scaler = Scaler::new(WINDOW, 5, start);
    for minute in 0..60 {
        let calls = if minute % 4 == 0 { 50 } else { 0 };
        scaler.decide(&wanted, &loads(&[calls, 0, 0, 0, 0]), after(start, minute * 60));
        assert_eq!(scaler.current(), 5, "in minute {minute}");
    }
}

#[test]
fn a_new_leader_removes_no_pod_before_it_has_seen_a_window_of_calls() {
    let (start, wanted) = (Instant::now(), autoscaling(1, 10, 10));
    let mut scaler = Scaler::new(WINDOW, 7, start);
    assert!(!scaler.decide(&wanted, &loads(&[0; 7]), after(start, 1)));
    assert_eq!(scaler.wake(), Some(after(start, 300)));
    assert!(scaler.decide(&wanted, &loads(&[0; 7]), after(start, 300)));
    assert_eq!(scaler.current(), 1);
    assert_eq!(scaler.why(), "no more were needed for 300 s; the pods hold 0 calls, at a target of 10 a pod");
}

#[test]
fn a_pod_that_has_not_said_how_many_calls_it_holds_is_taken_for_full_when_it_is_about_fewer() {
    let (start, wanted) = (Instant::now(), autoscaling(1, 10, 10));
    let mut scaler = Scaler::new(WINDOW, 3, start);
    let pods = [load("a", true, Some(0)), load("b", true, None), load("c", true, None)];
    scaler.decide(&wanted, &pods, start);
    scaler.decide(&wanted, &pods, after(start, 1000));
    assert_eq!(scaler.current(), 2);
    // And for empty when it is about more.
    scaler.decide(&wanted, &[load("a", true, Some(20)), load("b", true, None)], after(start, 1001));
    assert_eq!(scaler.current(), 2);
    // One that isn't ready and silent has no call.
    scaler.decide(&wanted, &[load("a", true, Some(0)), load("b", false, None)], after(start, 1002));
    scaler.decide(&wanted, &[load("a", true, Some(0)), load("b", false, None)], after(start, 2000));
    assert_eq!(scaler.current(), 1);
}

#[test]
fn what_somebody_else_sets_holds_for_a_window_within_the_bounds() {
    let (start, wanted) = (Instant::now(), autoscaling(2, 6, 10));
    let mut scaler = Scaler::new(WINDOW, 2, start);
    scaler.set(5, after(start, 1000));
    assert!(!scaler.decide(&wanted, &loads(&[0; 5]), after(start, 1001)));
    assert_eq!(scaler.wake(), Some(after(start, 1300)));
    scaler.set(9, after(start, 1100));
    scaler.decide(&wanted, &loads(&[0; 5]), after(start, 1100));
    assert_eq!(scaler.current(), 6);
    assert!(scaler.why().starts_with("autoscaling.max is 6;"), "{}", scaler.why());
    scaler.set(0, after(start, 1200));
    scaler.decide(&wanted, &[], after(start, 1200));
    assert_eq!(scaler.current(), 2);
    assert!(scaler.why().starts_with("autoscaling.min is 2;"), "{}", scaler.why());
}

#[test]
fn the_pods_with_the_fewest_calls_are_marked_and_no_others() {
    let mut pods = loads(&[7, 0, 3, 1]);
    assert_eq!(marks(&pods, 2), [("gw-1".to_owned(), Some("-1")), ("gw-3".to_owned(), Some("-1"))]);
    // What is marked already stays, what was marked for an earlier time is set free, what others wrote is theirs.
    pods[0].deletion_cost = Some("-1".to_owned());
    pods[1].deletion_cost = Some("-1".to_owned());
    pods[2].deletion_cost = Some("100".to_owned());
    assert_eq!(marks(&pods, 1), [("gw-0".to_owned(), None)]);
    assert_eq!(marks(&pods, 0).len(), 2, "nobody goes, nobody is marked");
    let starting = [load("a", true, Some(0)), load("b", false, None), load("c", true, None)];
    assert_eq!(marks(&starting, 2), [("b".to_owned(), Some("-1")), ("a".to_owned(), Some("-1"))]);
}

/// A look at the pods some seconds after the last one, and what somebody set before it.
fn looks() -> impl Strategy<Value = Vec<(u64, Vec<Option<u32>>, Option<i32>)>> {
    let calls = prop::collection::vec(prop::option::weighted(0.9, 0..60u32), 0..8);
    prop::collection::vec((0..200u64, calls, prop::option::weighted(0.1, 0..20i32)), 1..40)
}

proptest! {
    #[test]
    fn the_number_is_bounded_enough_for_the_calls_and_never_below_what_a_window_needed(
        looks in looks(),
        (min, room, target) in (1..4i32, 0..8i32, 1..30i32),
        first in 0..20i32,
    ) {
        let wanted = autoscaling(min, min + room, target);
        let within = |number: i32| number.clamp(min, min + room);
        let mut now = Instant::now();
        let mut scaler = Scaler::new(WINDOW, first, now);
        let mut needed: Vec<(Instant, i32)> = vec![(now, within(first))];
        for (pause, calls, set) in looks {
            now += Duration::from_secs(pause);
            if let Some(number) = set {
                scaler.set(number, now);
                needed.push((now, within(number)));
            }
            let pods: Vec<_> = calls.iter().map(|calls| load("gw", true, *calls)).collect();
            let before = scaler.current();
            let changed = scaler.decide(&wanted, &pods, now);
            let number = scaler.current();
            prop_assert_eq!(changed, number != before);
            prop_assert!((min..=min + room).contains(&number));
            let held: u32 = calls.iter().flatten().sum();
            let full = within(i32::try_from(held.div_ceil(u32::try_from(target).unwrap())).unwrap());
            prop_assert!(number >= full, "{held} calls take {full}");
            needed.push((now, full));
            if number < before {
                let recent = needed.iter().filter(|(at, _)| now.duration_since(*at) < WINDOW);
                let most = recent.map(|(_, needed)| *needed).max().unwrap_or(min);
                prop_assert!(number >= most, "{most} were needed within the window, and {number} are left");
            }
            prop_assert!(!scaler.decide(&wanted, &pods, now), "looking twice changes nothing");
            if let Some(wake) = scaler.wake() {
                prop_assert!(wake > now, "there is no busy waiting");
            }
        }
    }
}
