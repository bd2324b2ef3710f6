use super::{Lane, State};
use crate::{
    alert::{Alert, Severity, Status},
    notify::{
        config::Wants,
        health::Health,
        queue::{Keep, Queue},
        sample,
    },
};

fn lane(wants: Wants) -> Lane {
    lane_that(Keep::Story, wants)
}

fn lane_that(keep: Keep, wants: Wants) -> Lane {
    let health = Health::new("test".to_owned(), "stdout", "stdout".to_owned());
    Lane::new(wants, None, Queue::new(keep, 100), health)
}

fn wants(min_severity: Severity, only: &[&str], except: &[&str]) -> Wants {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Wants {
        min_severity,
        only: owned(only),
        except: owned(except),
    }
}

fn alert(severity: Severity, status: Status) -> Alert {
    Alert {
        severity,
        ..sample("a", status)
    }
}

#[test]
fn severity_and_reasons_decide() {
    use Severity::{Critical, Info, Warning};

    let told = alert(Warning, Status::Firing);
    for (least, only, except, is_wanted) in [
        (Info, &[][..], &[][..], true),
        (Warning, &["accept"], &[], true),
        (Critical, &[], &[], false),
        (Info, &["accept.emfile", "queue"], &[], true),
        (Info, &["queue"], &[], false),
        (Info, &["acc"], &[], false),
        (Info, &["accept"], &["accept.emfile"], false),
        (Info, &[], &["queue"], true),
    ] {
        let wants = wants(least, only, except);
        assert_eq!(wants.accept(&told), is_wanted, "{wants:?}");
    }
    let mut without = told;
    without.labels.remove("reason");
    assert!(wants(Info, &[], &["accept"]).accept(&without));
    assert!(!wants(Info, &["accept"], &[]).accept(&without));
}

#[test]
fn an_incident_that_was_told_is_told_to_its_end() {
    use Severity::{Critical, Warning};

    let lane = lane(wants(Critical, &[], &[]));
    assert!(!lane.send(&alert(Warning, Status::Firing)));
    assert!(!lane.send(&alert(Warning, Status::Resolved)));
    assert!(lane.send(&alert(Critical, Status::Firing)));
    assert!(lane.send(&alert(Warning, Status::Firing)));
    assert!(lane.send(&alert(Warning, Status::Resolved)));
    // That was its end.
    assert!(!lane.send(&alert(Warning, Status::Firing)));
}

#[test]
fn a_failure_is_remembered_until_the_next_success() {
    let lane = lane(wants(Severity::Info, &[], &[]));
    let mut state = lane.lock();
    let state: &mut State = &mut state;
    state.failed("no".to_owned(), None);
    state.failed("still no".to_owned(), None);
    assert_eq!(state.health.failed_attempts, 2);
    assert_eq!(state.health.last_error.as_deref(), Some("still no"));
    assert!(state.not_before.is_some() && state.health.last_success.is_none());
    state.succeeded();
    assert!(state.health.last_error.is_none() && state.health.last_success.is_some());
    assert!(state.not_before.is_none());
}

#[test]
fn after_a_restart_only_those_who_forget_are_told_again() {
    use Severity::{Critical, Warning};

    let firing = alert(Critical, Status::Firing);
    for (keep, is_told) in [(Keep::Story, false), (Keep::Newest, true)] {
        let lane = lane_that(keep, wants(Critical, &[], &[]));
        assert_eq!(lane.resume(&firing), is_told);
        // What waits already is not doubled.
        assert!(!lane.resume(&firing));
        // It is known to have been told: its end is wanted.
        assert!(lane.send(&alert(Warning, Status::Resolved)));
        assert!(!lane.resume(&alert(Warning, Status::Firing)));
    }
}
