//! Who runs when, with work that takes a known time.

use std::sync::Mutex;

use super::*;
use crate::endpoints::EndpointLimits;

type Ran = Arc<Mutex<Vec<&'static str>>>;

fn share(pace: &Arc<Pace>, cpu_share: u32) -> Arc<Share> {
    let limits = EndpointLimits { cpu_share, ..EndpointLimits::default() };
    Share::new(pace.clone(), Arc::new(Quota::new(&limits)))
}

/// A connection that is polled `times` times, and takes half a slice each time.
async fn works(name: &'static str, times: usize, share: Arc<Share>, ran: Ran) {
    for _ in 0..times {
        ran.lock().expect("no panic").push(name);
        share.charge(SLICE / 2);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_endpoint_with_many_connections_runs_no_more_than_one_with_few() {
    let pace = Arc::<Pace>::default();
    let (noisy, quiet) = (share(&pace, USUAL), share(&pace, USUAL));
    let ran = Ran::default();
    let turns = tokio::spawn({
        let pace = pace.clone();
        async move { pace.run().await }
    });
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let work = works("noisy", 10, noisy.clone(), ran.clone());
        tasks.push(tokio::spawn(Paced::new(noisy.clone(), work)));
    }
    let work = works("quiet", 10, quiet.clone(), ran.clone());
    tasks.push(tokio::spawn(Paced::new(quiet.clone(), work)));
    for task in tasks {
        task.await.expect("it ends");
    }
    turns.abort();
    let ran = ran.lock().expect("no panic");
    assert_eq!(ran.len(), 1010, "nobody is forgotten");
    let last = ran.iter().rposition(|name| *name == "quiet").expect("it ran");
    let before = ran[..last].iter().filter(|name| **name == "noisy").count();
    assert!(before <= 60, "the quiet one ended after {before} of the others' 1000 steps");
}

#[tokio::test]
async fn a_larger_share_runs_more_of_the_time() {
    let pace = Arc::<Pace>::default();
    let (large, small) = (share(&pace, 4 * USUAL), share(&pace, USUAL));
    let ran = Ran::default();
    let turns = tokio::spawn({
        let pace = pace.clone();
        async move { pace.run().await }
    });
    let mut tasks = Vec::new();
    for _ in 0..20 {
        for (name, share) in [("large", &large), ("small", &small)] {
            let work = works(name, 20, share.clone(), ran.clone());
            tasks.push(tokio::spawn(Paced::new(share.clone(), work)));
        }
    }
    for task in tasks {
        task.await.expect("it ends");
    }
    turns.abort();
    let ran = ran.lock().expect("no panic");
    let first: Vec<_> = ran.iter().take(400).collect();
    let large = first.iter().filter(|name| ***name == "large").count();
    assert!((250..=380).contains(&large), "{large} of 400");
}

#[test]
fn who_is_gone_does_not_hold_up_who_queues_behind() {
    let pace = Arc::<Pace>::default();
    let share = share(&pace, USUAL);
    let waker = Waker::noop();
    share.charge(SLICE);
    let (mut first, mut second) = (None, None);
    assert!(!share.admits(&mut first, waker) && !share.admits(&mut second, waker));
    pace.turn.fetch_add(1, Ordering::Relaxed);
    pace.serve();
    // Called, and dropped before it ran.
    drop(Paced { share: share.clone(), ticket: first, connection: Box::pin(async {}) });
    assert!(share.admits(&mut second, waker));
    assert!(second.is_none());
}
